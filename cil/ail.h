// Ail: the items that are in the log and not yet home, by the LSN of their checkpoint.
//
// A bucket stands for one checkpoint, at its start LSN, and lists the items whose newest stable
// snapshot is in it. The tail is the first bucket that still holds an item or is held on purpose.
//
// I1 Buckets are in LSN order; an item is in at most one and only ever moves to a later one.
// I2 A bucket that is being filled is kept even if it is empty, so the tail cannot jump past it.
//    Any other goes when its last item leaves it, wherever it stands, but for the last of several:
//    a checkpoint without memory for a bucket counts on joining that one, and none before it. So
//    there are no more than items and held buckets, and one; and the first holds the tail.
// I3 No call allocates, but for make_bucket(). Without memory for a bucket, items join the bucket
//    before it: the tail then stays lower than it need, never higher. But two buckets are the
//    AIL's own, for when there is none: so while all items are in one, the next checkpoint has
//    another, and what is logged again in it leaves the oldest.
// I4 ItemState::kTracked says that an item is in a bucket; it changes under the lock, and not while
//    an item only moves.
// Locks: one, taken for a batch of items at a time, and who waits for it comes before a walk's next
//    batch, so that nobody waits for all of a walk; but for_items() and for_oldest() hold it for
//    as many as they are asked for.
// Source: AIL (XFS); a bucket for a checkpoint instead of one list, so that a checkpoint of any
// size enters in constant time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "keel/base/mutex.h"
#include "keel/base/os.h"
#include "keel/base/units.h"
#include "log/format.h"
#include "log_vector.h"

namespace keel {

struct Bucket {
  Lsn lsn{};
  format::CheckpointId predecessor{};  // what recovery must find named at lsn
  LogItem* first = nullptr;
  LogItem* last = nullptr;
  std::size_t items = 0;
  unsigned holds = 0;  // being filled, or kept on purpose
  Bucket* previous = nullptr;
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
  static constexpr std::size_t kBatch = 32;
  struct Batch {
    std::array<LogItem*, kBatch> items{};
    std::size_t count = 0;
    std::size_t pinned = 0;  // seen, and left alone: pinned, or held by another
    bool is_last = false;
  };

  // A walk over the items below `limit`, oldest first, by one thread. The item or bucket that
  // it stands at may leave: it goes on with the next. An item that moves meanwhile may be seen
  // twice; none below the limit is passed over, but for what is pinned or held (counted in
  // Batch::pinned). The AIL outlives it.
  class Walk {
   public:
    Walk(Ail& ail, Lsn limit) KEEL_EXCLUDES(ail.mutex_);
    ~Walk() KEEL_EXCLUDES(ail_.mutex_);
    Walk(const Walk&) = delete;
    Walk& operator=(const Walk&) = delete;

    // The next items that are neither pinned nor about to leave, each marked as ItemState::kHeld:
    // it stays until leave().
    [[nodiscard]] Batch hold_next() KEEL_EXCLUDES(ail_.mutex_);

   private:
    friend class Ail;
    void go_to(Bucket* bucket);

    Ail& ail_;
    const Lsn limit_;
    // Under the AIL's lock, as all that follows; nullptr: behind the last.
    Bucket* bucket_ = nullptr;  // at hand
    LogItem* item_ = nullptr;   // of it, to be looked at next
    Walk* next_ = nullptr;
  };

  Ail() = default;
  ~Ail();
  Ail(const Ail&) = delete;
  Ail& operator=(const Ail&) = delete;

  // A bucket, or nullptr if there is no memory for one and the AIL's own are taken; give_bucket()
  // takes back what publish() has not.
  [[nodiscard]] Bucket* make_bucket() KEEL_EXCLUDES(mutex_);
  void give_bucket(Bucket* bucket) KEEL_EXCLUDES(mutex_);
  // Adds a held bucket for the checkpoint at `lsn`, above all others.
  [[nodiscard]] Bucket* publish(Bucket* memory, Lsn lsn, const format::CheckpointId& predecessor)
      KEEL_EXCLUDES(mutex_);
  // Moves the items of a chain of vectors, from `first` to before `end`, to the bucket; those of
  // cancelled vectors leave. An ordered one that is tracked already stays where it is.
  void enter(Bucket& bucket, LogVector* first, const LogVector* end) KEEL_EXCLUDES(mutex_);
  // The bucket may go once it is empty.
  void let_go(Bucket& bucket) KEEL_EXCLUDES(mutex_);

  // Puts an item that is not tracked into a bucket that is held.
  void adopt(Bucket& bucket, LogItem& item) KEEL_EXCLUDES(mutex_);
  // The journal knows the item no more; `in_release`: the caller is in its release(). False if
  // something has it: that is left to see to it, and the item, which may be gone as soon as it is
  // marked for that, is not touched again.
  [[nodiscard]] bool forget(LogItem& item, bool in_release) KEEL_EXCLUDES(mutex_);
  // Takes out an item that the caller holds: true, and it is held still; or a checkpoint has it
  // (again), and it is held no more. `if_wanted`: only if it is marked ItemState::kReleaseWanted.
  [[nodiscard]] bool leave(LogItem& item, bool if_wanted) KEEL_EXCLUDES(mutex_);
  // Takes any one item out: nullptr if there is none.
  struct Removed {
    LogItem* item = nullptr;
    bool held = false;  // by the caller now; else whoever has it will let go of it
  };
  [[nodiscard]] Removed remove_first() KEEL_EXCLUDES(mutex_);

  // Calls each(item) for the items, oldest first, under the lock, until it returns false or `most`
  // were seen. `each` must not block or come back here.
  template <class Each>
  void for_items(std::size_t most, const Each& each) KEEL_EXCLUDES(mutex_);
  // The same for those of the first bucket that has any.
  template <class Each>
  void for_oldest(std::size_t most, const Each& each) KEEL_EXCLUDES(mutex_);

  [[nodiscard]] TailPosition tail() const KEEL_EXCLUDES(mutex_);
  // Items that have left so far.
  [[nodiscard]] std::uint64_t departures() const {
    return departures_.load(std::memory_order_relaxed);  // a figure, orders nothing
  }
  // The longest time so far for which enter(), a walk or for_items() had the lock.
  [[nodiscard]] std::uint64_t max_hold_ns() const {
    return max_hold_ns_.load(std::memory_order_relaxed);  // a figure, orders nothing
  }
  // Walks all; returns the memory of the items' shadows.
  [[nodiscard]] std::uint64_t audit() const KEEL_EXCLUDES(mutex_);

 private:
  // Measures a hold of the lock, within which it lives. Two readings of the clock a batch.
  class HoldTimer {
   public:
    explicit HoldTimer(std::atomic<std::uint64_t>& longest)
        : longest_(longest), since_ns_(os().monotonic_ns()) {}
    ~HoldTimer() {
      // Relaxed, and no exchange: the lock is held.
      if (const std::uint64_t held_ns = os().monotonic_ns() - since_ns_;
          held_ns > longest_.load(std::memory_order_relaxed)) {
        longest_.store(held_ns, std::memory_order_relaxed);
      }
    }
    HoldTimer(const HoldTimer&) = delete;
    HoldTimer& operator=(const HoldTimer&) = delete;

   private:
    std::atomic<std::uint64_t>& longest_;
    const std::uint64_t since_ns_;
  };

  void link(Bucket& bucket, LogItem& item) KEEL_REQUIRES(mutex_);
  void unlink(LogItem& item) KEEL_REQUIRES(mutex_);
  void unlink_tracked(LogItem& item) KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool take_out(LogItem& item, bool if_wanted, std::uint32_t left)
      KEEL_EXCLUDES(mutex_);
  static bool hold_untracked(LogItem& item);
  static void hold(LogItem& item, Batch& batch);
  [[nodiscard]] bool is_own(const Bucket* bucket) const KEEL_REQUIRES(mutex_) {
    return bucket == own_.data() || bucket == own_.data() + 1;
  }
  void drop_if_done(Bucket* bucket) KEEL_REQUIRES(mutex_);
  void keep_or_free(Bucket* bucket) KEEL_REQUIRES(mutex_);

  mutable TurnMutex mutex_{LockRank::kJournalAilTurn, LockRank::kJournalAil};
  Bucket* front_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Bucket* back_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Walk* walks_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Bucket* spares_ KEEL_GUARDED_BY(mutex_) = nullptr;
  std::size_t spare_count_ KEEL_GUARDED_BY(mutex_) = 0;
  std::array<Bucket, 2> own_ KEEL_GUARDED_BY(mutex_);  // what make_bucket() gives at the last
  std::array<bool, 2> own_taken_ KEEL_GUARDED_BY(mutex_){};
  Bucket reserve_ KEEL_GUARDED_BY(mutex_);    // used only while the list is empty
  std::atomic<std::uint64_t> departures_{0};  // written under the lock, as the next
  std::atomic<std::uint64_t> max_hold_ns_{0};
};

template <class Each>
void Ail::for_items(std::size_t most, const Each& each) {
  TurnLock lock(mutex_);
  const HoldTimer timer(max_hold_ns_);
  for (const Bucket* bucket = front_; bucket != nullptr && most > 0; bucket = bucket->next) {
    for (LogItem* item = bucket->first; item != nullptr && most > 0; --most) {
      LogItem* following = ItemAccess::ail_next(*item);
      if (!each(*item)) {
        return;
      }
      item = following;
    }
  }
}

template <class Each>
void Ail::for_oldest(std::size_t most, const Each& each) {
  const Bucket* oldest = nullptr;
  for_items(most, [&](LogItem& item) {
    const Bucket* bucket = ItemAccess::bucket(item);
    oldest = oldest != nullptr ? oldest : bucket;
    return bucket == oldest && each(item);
  });
}

}  // namespace keel
