// Follower: reads a live journal's checkpoints as they become stable, in order and without a gap.
//
//   auto follower = journal->follow({.from = next(last_applied)});
//   for (;;) {
//     auto checkpoint = (*follower)->next(timeout_ns);   // what recovery would hand over
//     ...
//   }
//
// For replicas, caches and change feeds. While a follower stands within FollowConfig::most_behind
// of the newest stable checkpoint, the journal keeps the log from where it stands. One that falls
// further behind is dropped as soon as a tail beyond it is recorded, whether or not anybody wants
// the space: a journal without commits does that too (JournalConfig::cover_after_ns). It gets
// kLagged, never wrong data, and begins again from a copy.
#pragma once

#include <cstdint>
#include <memory>

#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel/cil/recovery.h"

namespace keel {

struct FollowConfig {
  static constexpr Sequence kOldest{};            // the oldest that the log still holds
  static constexpr Sequence kNewest{UINT64_MAX};  // only what is not yet stable
  // The first checkpoint to hand over. What an opening finds missing (a crash, rot, a salvage: see
  // RecoveryReport::first_missing) is gone, and its sequences are given anew, to other checkpoints.
  // Who had applied any of it begins again from a copy: the journal cannot tell.
  Sequence from = kOldest;
  // How far behind the newest stable checkpoint the follower may hold the log's tail. 0: a quarter
  // of the log. At most half of it: more is taken for half, so that a follower that stands still
  // never keeps a transaction from beginning.
  Bytes most_behind{};
};

// Threads: all calls from one at a time. Owner: the caller; it dies before its journal.
class Follower : public MetadataObject {
 public:
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // The next stable checkpoint; waits for it up to `timeout_ns` (UINT64_MAX: for ever). Reads from
  // the device. The checkpoint and its memory belong to the follower: valid until the next call.
  // After the journal's end (close(), a failure), what was stable before is still handed over, then
  // comes the error. In a callback of Journal::on_stable() of this journal it may not wait: what is
  // not stable yet is a reported bug there, unless the timeout is 0.
  // Errors: kTimeout; kInvalidArgument (that bug); kLagged (value: the sequence that was to come)
  // for good; kShutdown or the journal's first error; kDamaged (the log rots); kIo, kNoMemory: the
  // call may be repeated; kForked.
  [[nodiscard]] Result<const RecoveredCheckpoint*> next(std::uint64_t timeout_ns = UINT64_MAX);

  // Of the checkpoint that next() hands over next.
  [[nodiscard]] Sequence position() const;

 private:
  friend class Journal;
  struct Impl;
  explicit Follower(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keel
