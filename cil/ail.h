// Ail: the items that are in the log and not yet written home, by the LSN of their checkpoint.
//
// A bucket stands for one checkpoint, at its start LSN, and lists the items whose newest stable
// snapshot is in it. The tail is the first bucket that still holds an item.
//
// I1 Buckets are in LSN order; an item is in at most one and only ever moves to a later one.
// I2 A bucket that is being filled is kept even if it is empty, so the tail cannot jump past it.
// I3 No call allocates, but for prepare(). Without memory for a bucket, items join the bucket
//    before it: the tail then stays lower than it need, never higher.
// Locks: one, taken for a batch of items at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "keel/base/mutex.h"
#include "keel/base/units.h"
#include "log/format.h"
#include "log_vector.h"

namespace keel {

struct Bucket {
  Lsn lsn{};
  format::CheckpointId predecessor{};  // what recovery must find named at lsn
  LogItem* first = nullptr;
  std::size_t items = 0;
  unsigned holds = 0;  // being filled, or kept on purpose
  Bucket* next = nullptr;
};

struct TailPosition {
  bool empty = true;  // nothing is tracked: the tail is the head
  Lsn lsn{};
  format::CheckpointId predecessor{};
  std::size_t items = 0;  // that hold it
};

class Ail {
 public:
  Ail() = default;
  ~Ail();
  Ail(const Ail&) = delete;
  Ail& operator=(const Ail&) = delete;

  // Sets memory aside for the next bucket, if there is any.
  void prepare() KEEL_EXCLUDES(mutex_);
  // Adds a held bucket for the checkpoint at `lsn`, above all others.
  [[nodiscard]] Bucket* publish(Lsn lsn, const format::CheckpointId& predecessor)
      KEEL_EXCLUDES(mutex_);
  // Moves the items of a chain of vectors to the bucket, in batches. An ordered one that is tracked
  // already stays where it is.
  void fill(Bucket& bucket, LogVector* first) KEEL_EXCLUDES(mutex_);
  // The bucket may go once it is empty.
  void let_go(Bucket& bucket) KEEL_EXCLUDES(mutex_);

  // Takes an item out; no effect if it is not tracked.
  void remove(LogItem& item) KEEL_EXCLUDES(mutex_);
  // Takes any one item out; nullptr if there is none.
  [[nodiscard]] LogItem* remove_first() KEEL_EXCLUDES(mutex_);

  [[nodiscard]] TailPosition tail() const KEEL_EXCLUDES(mutex_);
  void audit() const KEEL_EXCLUDES(mutex_);

 private:
  void link(Bucket& bucket, LogItem& item) KEEL_REQUIRES(mutex_);
  void unlink(LogItem& item) KEEL_REQUIRES(mutex_);
  void drop_empty_front() KEEL_REQUIRES(mutex_);

  mutable Mutex mutex_{LockRank::kJournalAil};
  Bucket* front_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Bucket* back_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Bucket* spare_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Bucket reserve_ KEEL_GUARDED_BY(mutex_);  // used only while the list is empty
};

}  // namespace keel
