// Keeper: a thread that does a pool's work ahead of its callers (kswapd's part).
//
// It calls Upkeep::upkeep() when it is woken, and a few times a second for as long as that says
// that something is going on; every ten seconds while that cannot tell. In a pool at rest it
// sleeps.
// Locks: kLeaf over its own state; works without it.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/thread.h"

namespace keel {

class Upkeep {
 public:
  enum class Rounds : std::uint8_t {
    kNone,   // nothing is left that a later round would do
    kRare,   // there may be by and by, which nobody tells
    kUsual,  // there is
  };
  // One round of work; what is to follow.
  virtual Rounds upkeep() = 0;

 protected:
  ~Upkeep() = default;
};

class Keeper : public MetadataObject {
 public:
  explicit Keeper(Upkeep& work) : work_(work) {}
  ~Keeper() { stop(); }
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Starts the thread; false if the system gives none. The pool works without.
  [[nodiscard]] bool start();
  void stop() KEEL_EXCLUDES(lock_);
  // Holds rounds off while it lives, and waits for one under way: for audits.
  class Paused {
   public:
    explicit Paused(Keeper& keeper) : keeper_(keeper) { keeper_.pause(); }
    ~Paused() { keeper_.resume(); }
    Paused(const Paused&) = delete;
    Paused& operator=(const Paused&) = delete;

   private:
    Keeper& keeper_;
  };

  // Memory is low: a round should begin now. Only the first call before it does anything.
  void note_low() {
    if (!low_.load(std::memory_order_relaxed)) {  // A hint; all that it may cost is a round.
      wake();
    }
  }
  // Something changed: rounds should be made for a while. Only the first call since a round began
  // does anything, and makes a system call only if no round is to come soon.
  void note_activity() {
    if (!active_.load(std::memory_order_relaxed)) {  // Told already; the next round sees it.
      // In this order, as in wait_for_round(), and in one order for all: either it is seen there
      // that something changed, or here that nobody looks.
      active_.store(true, std::memory_order_seq_cst);
      if (resting_.load(std::memory_order_seq_cst)) {
        wake();
      }
    }
  }

 private:
  void run() KEEL_EXCLUDES(lock_);
  // Waits until a round is due, or was asked for; false if it is time to stop.
  [[nodiscard]] bool wait_for_round(Upkeep::Rounds rounds) KEEL_EXCLUDES(lock_);
  void wake() KEEL_EXCLUDES(lock_);
  void pause() KEEL_EXCLUDES(lock_);
  void resume() KEEL_EXCLUDES(lock_);

  Upkeep& work_;
  std::optional<Thread> thread_;
  std::atomic<bool> resting_{false};  // no round comes soon
  std::atomic<bool> active_{false};   // something changed since the last round began
  std::atomic<bool> low_{false};
  Mutex lock_{LockRank::kLeaf};
  CondVar wake_;
  CondVar round_ended_;
  unsigned pauses_ KEEL_GUARDED_BY(lock_) = 0;
  bool in_round_ KEEL_GUARDED_BY(lock_) = false;
  bool woken_ KEEL_GUARDED_BY(lock_) = false;
  bool stop_ KEEL_GUARDED_BY(lock_) = false;
};

}  // namespace keel
