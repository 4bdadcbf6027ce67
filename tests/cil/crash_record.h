// LifeRecord: what a life committed, promised and wrote home, and its disk at each moment: the
// oracle that crashed disks are judged by.
//
// I1 A moment's promises are read before its snapshot of the disk: what is promised while that is
//    taken is not asked of it.
// I2 The history of an object is of the one thread that commits it, until the life is over.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "crash_run.h"
#include "crash_versions.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "support/sim_disk.h"

namespace keel_test::crash_lab {

// With what a life begins: what a crash left, and what its parent promised of that.
struct Beginning {
  std::uint64_t sequence = 0;
  Versions base{};
  Versions home{};
  // What the log has, as the parent's judge found it.
  Versions logged{};
  std::array<bool, kCrashObjects> erased{};
};

struct Change {
  std::uint64_t sequence;
  Version version;
};

// What is promised of a disk at one moment.
struct Moment {
  keel::SimSnapshot disk;
  bool promised = false;  // just now
  bool in_write = false;  // a durable write is under way; else just after an I/O
  bool closed = false;    // close() has said that all went well
  std::uint64_t step = 0;
  std::uint64_t forced = 0;
  // Before the snapshot and after: other threads may write home meanwhile.
  Versions home_before{};
  Versions home{};
};

class LifeRecord {
 public:
  LifeRecord(Run& run, std::uint32_t depth, std::uint64_t seed, keel::SimDisk& disk,
             const Beginning& beginning);

  // While the life goes on. Threads: any, but for changes of one object.

  [[nodiscard]] Version new_version();
  void committed(std::size_t id, std::uint64_t sequence, Version version);
  [[nodiscard]] const Change& newest(std::size_t id) const { return history_[id].back(); }
  // By this life.
  [[nodiscard]] bool is_committed(std::size_t id) const { return history_[id].size() > 1; }
  // Said before the log lets go of it.
  void goes_home(std::size_t id, Version version);
  // All that recovery delivered.
  void recovered_goes_home();
  // Says that the sequence is promised from now on.
  void promise(std::uint64_t sequence);
  // `write`: nullptr, or what is under way.
  void take_moment(bool promised, const keel::SimDurableWrite* write = nullptr);
  // close() has: everything committed is promised, and that the log ends there.
  void closed_in_order();
  // Somebody met an injected fault: the life ends.
  void fail() { failed_ = true; }
  [[nodiscard]] bool failed() const { return failed_; }
  // Whether it went well. If not, the life is over; it must have met a fault that may do that.
  bool succeeded(const keel::Status& status, const char* what);
  // Of a call that was refused, while the journal goes on.
  void was_refused(const char* what, const keel::Error& error) const;
  [[nodiscard]] bool may_fail(Failing what, const keel::Error& error) const;
  // Each callback that was asked for must be called.
  void asked_for_callback(bool granted);
  void callback_called();
  void check_callbacks();

  // Once it is over.

  [[nodiscard]] const std::vector<Moment>& moments() const { return moments_; }
  // The version that the sequence left the object with.
  [[nodiscard]] Version expected(std::size_t id, std::uint64_t sequence) const;

  [[nodiscard]] std::uint32_t depth() const { return depth_; }
  [[nodiscard]] std::uint64_t seed() const { return seed_; }
  [[nodiscard]] const Beginning& beginning() const { return beginning_; }
  [[nodiscard]] std::uint64_t first_sequence() const { return history_[0].front().sequence; }
  [[nodiscard]] std::string place_of(const Moment& moment) const;

 private:
  [[nodiscard]] std::uint64_t newest_sequence() const;

  Run& run_;
  const std::uint32_t depth_;
  const std::uint64_t seed_;
  keel::SimDisk& disk_;
  const Beginning beginning_;

  keel::Mutex mutex_{keel::LockRank::kLeaf};
  std::uint64_t forced_ KEEL_GUARDED_BY(mutex_) = 0;
  bool closed_ KEEL_GUARDED_BY(mutex_) = false;
  Versions home_ KEEL_GUARDED_BY(mutex_){};
  std::uint64_t callbacks_asked_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t callbacks_called_ KEEL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> failed_{false};
  std::array<std::vector<Change>, kCrashObjects> history_;  // each of one thread
  std::vector<Moment> moments_;                             // guarded by mutex_ while threads run
};

}  // namespace keel_test::crash_lab
