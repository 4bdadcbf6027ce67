// Watchdog: one thread that looks now and then whether what should move does, and says so once if
// it does not.
//
// I1 It takes no lock that is held over a wait: not the context's parts, not the close lock, not
//    the state's. It reads the parts' counts of holds without a lock, and the rest under locks that
//    are held for a few lines (space, push, stable, AIL).
// I2 Something is stalled if it is the same, and nothing of it has moved, for the whole deadline;
//    it is reported once until it moves.
// I3 Whoever is watched does nothing for it but what it does anyway; no commit writes a cache line
//    that it would not write.
// I4 It allocates nothing, and calls on_stall without a lock.
// Locks: one leaf, for its sleep.
// Source: the hung task detector (Linux kernel/hung_task.c), which says who waits; this one also
// says for what.
#pragma once

#include <array>
#include <cstdint>

#include "cil.h"
#include "keel/base/mutex.h"
#include "keel/base/os.h"
#include "keel/base/thread.h"
#include "keel/cil/journal.h"

namespace keel {

inline constexpr unsigned kMostDepth = 16;

class Watchdog {
 public:
  explicit Watchdog(Journal::Impl& journal) : journal_(journal) {}
  ~Watchdog();

  // Starts the thread, unless it is switched off. Throws std::system_error.
  void start();
  void stop();

 private:
  // What is watched: the same as long as both words are.
  struct Watch {
    std::uint64_t identity = 0;  // 0: nothing is there
    std::uint64_t progress = 0;
    std::uint64_t since_ns = 0;
    bool reported = false;
  };
  struct FlightSeen {
    std::uint64_t identity = 0;
    std::uint64_t progress = 0;
    Sequence sequence{};
    Lsn lsn{};
    StallReport::WaitsFor waits_for = StallReport::WaitsFor::kThread;
  };

  void run();
  void look();
  // True once, when it has been the same for the deadline. `since_ns`: when that is known better.
  [[nodiscard]] bool is_stalled(Watch& watch, std::uint64_t identity, std::uint64_t progress,
                                std::uint64_t since_ns = UINT64_MAX);
  void look_at_parts();
  void look_at_flights();
  void look_at_forces();
  void look_at_begins();
  void look_at_close();
  [[nodiscard]] std::uint32_t stuck_part() const;
  // An item's push() is under way for two looks; false if none is.
  [[nodiscard]] bool blame_home_push(StallReport& report);
  // The oldest in flight says what holds up the rest; false if there is none.
  [[nodiscard]] bool blame_flight(StallReport& report);
  [[nodiscard]] FlightSeen see_flight(unsigned index, bool& is_first) const;
  void blame_tail(StallReport& report);
  void send(StallReport report, const Watch& watch);

  Journal::Impl& journal_;
  Os* os_ = nullptr;  // as it was when the journal was opened: a test may have another by now
  std::uint64_t deadline_ns_ = 0;
  std::uint64_t now_ns_ = 0;
  std::array<Watch, Cil::kMostParts> parts_{};
  std::array<Watch, kMostDepth> flights_{};
  Watch force_;
  Watch begin_;
  Watch home_push_;
  Watch close_;

  Mutex mutex_{LockRank::kLeaf};
  CondVar wake_;
  bool stopping_ KEEL_GUARDED_BY(mutex_) = false;
  Thread thread_;
};

}  // namespace keel
