// LogVector: one item's formatted snapshot, in one allocation.
//
//   [LogVector | packed area] [large area, page-aligned]
//
// I1 Owned by exactly one of: the item as its shadow, the item as its active vector, a commit or a
//    trim that has claimed the shadow, or a closed checkpoint until it is stable.
// I2 The packed area is the item's piece of the checkpoint's packed stream, byte for byte, so that
//    building a record is one copy an item.
// I3 A region of a log block and more stands in the large area at a page boundary, so its whole
//    blocks can be written with direct I/O from here; what it has beyond them is copied to the
//    packed area as well. The region headers there tell where each large region ends.
// I4 A vector may hold any snapshot whose layout fits in capacity_bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "keel/cil/log_item.h"
#include "log/format.h"

namespace keel {

class Pool;

// What a snapshot needs of its vector.
struct SnapshotLayout {
  std::size_t packed_bytes;
  std::size_t large_bytes;
  std::uint32_t region_count;
  bool ordered;
};

// One cache line: all that a push looks at beside the snapshot itself.
struct LogVector {
  LogItem* item;
  LogVector* next;             // in a closed checkpoint
  std::uint64_t order;         // place in its checkpoint: of the last commit, unique
  std::size_t capacity_bytes;  // of the whole allocation
  std::uint64_t packed_bytes;  // what the snapshot adds to each stream
  std::uint64_t bulk_blocks;
  const std::byte* large;     // the large area
  std::uint32_t block_bytes;  // of the log
  bool ordered;               // tracked, not written
  bool cancelled;    // an intent whose done came in the same context: not written, not tracked
  bool is_snapshot;  // as a shadow: holds what is stable in the log

  [[nodiscard]] std::uint64_t cost() const {
    return format::checkpoint_cost(packed_bytes, bulk_blocks, block_bytes);
  }
  [[nodiscard]] const std::byte* packed() const {
    return reinterpret_cast<const std::byte*>(this + 1);
  }
};
static_assert(sizeof(LogVector) == 64);

[[nodiscard]] inline SnapshotLayout layout_of(const ItemSize& size) {
  return {size.packed_bytes(), size.large_bytes(), size.region_count(), size.is_ordered()};
}

// Bytes of an allocation that holds such a snapshot.
[[nodiscard]] std::size_t log_vector_bytes(const SnapshotLayout& layout);

// Allocates a vector without a snapshot; nullptr if there is no memory.
[[nodiscard]] LogVector* allocate_log_vector(Pool& pool, const SnapshotLayout& layout,
                                             std::uint32_t block_bytes,
                                             bool retry_contiguous = false);

// Writes a snapshot into a vector, in place of the one that it holds. No allocation.
class SnapshotWriter {
 public:
  // Aborts if the layout does not fit.
  SnapshotWriter(LogVector& vector, const SnapshotLayout& layout);

  // Gives room for the next region; aborts if the layout has no room for it.
  [[nodiscard]] std::byte* region(std::size_t bytes);
  // After the last region, which the client has filled by now. Aborts if it wrote beyond one.
  void finish(std::uint32_t item_type);

 private:
  void check_headers() const;

  LogVector& vector_;
  std::uint32_t regions_ = 0;
  const std::uint32_t most_regions_;
  std::byte* packed_next_;
  std::byte* const packed_end_;
  std::byte* large_next_;
  std::byte* const large_end_;
};

// The large regions of a snapshot, in order, by the region headers.
class LargeRegions {
 public:
  explicit LargeRegions(const LogVector& vector);
  // Goes to the next one; false if there is none.
  [[nodiscard]] bool next();

  [[nodiscard]] const std::byte* data() const { return data_; }
  [[nodiscard]] std::uint64_t blocks() const { return header_.bulk_blocks; }
  [[nodiscard]] std::size_t rest_bytes() const { return header_.rest_bytes; }
  // Where the rest stands in the packed area.
  [[nodiscard]] const std::byte* packed_rest() const { return packed_rest_; }

 private:
  const std::uint32_t block_bytes_;
  std::uint32_t left_ = 0;      // regions of either kind
  const std::byte* packed_;     // the next region's header
  const std::byte* next_data_;  // of the next large one
  format::RegionHeader header_{};
  const std::byte* data_ = nullptr;
  const std::byte* packed_rest_ = nullptr;
};

// LogItem::state_: the number of pins, and flags. At 0 no thread of the journal touches the item.
struct ItemState {
  static constexpr std::uint32_t kPins = 0xffff;
  static constexpr std::uint32_t kTracked = 1U << 16;  // in the AIL
  // One thread has it: a walk over the AIL, for push() or a trim; or it lets go of it, release()
  // included. Who wants it gone meanwhile leaves a mark, and whoever has it sees to that.
  static constexpr std::uint32_t kHeld = 1U << 17;
  static constexpr std::uint32_t kReleaseWanted = 1U << 18;  // leaves when nothing holds it
  static constexpr std::uint32_t kKnown = kPins | kTracked;  // to the journal

  // Of an item that is to leave and has no pins: the caller takes it, or leaves a mark to whoever
  // holds it.
  static constexpr std::uint32_t taken(std::uint32_t now) {
    return now | ((now & kHeld) == 0 ? kHeld : kReleaseWanted);
  }
};

// The journal's way to the private part of an item.
struct ItemAccess {
  static std::atomic<std::uint32_t>& state(LogItem& item) { return item.state_; }
  // What one thread does to an item is one step of its state, to next(state). True if the caller
  // holds the item by that. Without a hold, a pin or the AIL's lock it does not touch the item
  // again: whoever has it may let go of it at once, and it may be destroyed.
  template <class Next>
  static bool change_state(LogItem& item, const Next& next) {
    std::uint32_t now = item.state_.load(std::memory_order_acquire);
    std::uint32_t wanted = next(now);
    while (wanted != now &&
           !item.state_.compare_exchange_weak(now, wanted, std::memory_order_acq_rel)) {
      wanted = next(now);
    }
    return (~now & wanted & ItemState::kHeld) != 0;
  }
  static LogVector*& active(LogItem& item, Sequence context) {
    return item.memberships_[context.value() & 1].active;
  }
  static LogItem*& next(LogItem& item, Sequence context) {
    return item.memberships_[context.value() & 1].next;
  }
  static const void*& transaction(LogItem& item) { return item.transaction_; }
  // By a commit: what failed with an earlier journal counts no more.
  static void forget_abort(LogItem& item) {
    item.aborted_.store(false, std::memory_order_relaxed);  // the object lock orders it
  }
  // By a commit that logs the item: its snapshot is the one to have.
  static void logged_at(LogItem& item, std::uint64_t order) {
    item.logged_order_.store(order, std::memory_order_relaxed);
  }
  // What was logged before that is of no use to the log: it is home, or nobody's any more.
  static void let_go_at(LogItem& item, std::uint64_t order) {
    std::uint64_t now = item.logged_order_.load(std::memory_order_relaxed);
    while (now < order &&
           !item.logged_order_.compare_exchange_weak(now, order, std::memory_order_relaxed)) {
    }
  }
  // Whether the item may be logged again from the vector, if it is not pinned.
  [[nodiscard]] static bool is_newest_snapshot(const LogItem& item, const LogVector& vector) {
    return vector.is_snapshot && vector.order >= item.logged_order_.load(std::memory_order_relaxed);
  }
  static Bucket*& bucket(LogItem& item) { return item.bucket_; }
  static LogItem*& ail_next(LogItem& item) { return item.ail_next_; }
  static LogItem*& ail_previous(LogItem& item) { return item.ail_previous_; }
  static Pool*& pool(LogItem& item) { return item.pool_; }

  // The shadow, or nullptr; it is the caller's from now on. Acquire pairs with put_shadow().
  static LogVector* claim_shadow(LogItem& item) {
    // Most items have none: then a load is enough.
    return item.shadow_.load(std::memory_order_relaxed) == nullptr
               ? nullptr
               : item.shadow_.exchange(nullptr, std::memory_order_acq_rel);
  }
  // Gives the item a shadow; false if it has one already.
  [[nodiscard]] static bool put_shadow(LogItem& item, LogVector* vector) {
    LogVector* none = nullptr;
    return item.shadow_.compare_exchange_strong(none, vector, std::memory_order_acq_rel);
  }
  // Gives the item a shadow; returns the one that it had.
  [[nodiscard]] static LogVector* exchange_shadow(LogItem& item, LogVector* vector) {
    return item.shadow_.exchange(vector, std::memory_order_acq_rel);
  }
  // Gives back a shadow that was claimed to be looked at. Returns what is left over, or nullptr: a
  // commit that was cancelled meanwhile may have left a vector, which is no snapshot.
  [[nodiscard]] static LogVector* return_shadow(LogItem& item, LogVector* vector) {
    if (put_shadow(item, vector)) {
      return nullptr;
    }
    return vector->is_snapshot ? exchange_shadow(item, vector) : vector;
  }
  static const LogVector* shadow(const LogItem& item) {
    return item.shadow_.load(std::memory_order_acquire);
  }

  static void size(const LogItem& item, ItemSize& size) { item.size(size); }
  // Writes a snapshot of the item into a vector that it fits in.
  static void snapshot(LogItem& item, LogVector& vector, const SnapshotLayout& layout);
  // By a commit, which takes back a wish that the item leave; `pins`: it is new to the context. One
  // step: an earlier checkpoint that becomes stable either finds it pinned, or has wished before.
  // False if it did, or if the journal did not know the item: what was logged of it is of a former
  // life.
  static bool commit(LogItem& item, bool pins) {
    bool stays = false;
    (void)change_state(item, [&stays, pins](std::uint32_t now) {
      stays = (now & ItemState::kKnown) != 0 && (now & ItemState::kReleaseWanted) == 0;
      return (now & ~ItemState::kReleaseWanted) + (pins ? 1U : 0U);
    });
    if (pins) {
      item.pin();
    }
    return stays;
  }
  // False, and nothing, if it is pinned or about to leave.
  [[nodiscard]] static bool try_pin(LogItem& item);
  // True if this was the last pin of an item that leaves (`leaves`: also if nobody has wished it):
  // then the caller holds it, to let go of it. If not, it is not touched any more.
  [[nodiscard]] static bool unpin(LogItem& item, bool leaves);
  // The same for a checkpoint that failed. What is tracked stays, unless its release was wanted.
  [[nodiscard]] static bool abort(LogItem& item);
  // Ends a hold. False if the item is to be let go of: then it is held still.
  [[nodiscard]] static bool stop_holding(LogItem& item);
  static bool is_known(const LogItem& item) {
    return (item.state_.load(std::memory_order_acquire) & ItemState::kKnown) != 0;
  }
  // Whether clean() is true of all that was committed: no checkpoint that is not stable yet has the
  // item; and who calls it in release() does not speak of a commit that has crossed with that call,
  // unless that is to be let go of too.
  [[nodiscard]] static bool may_clean(const LogItem& item);
  static void committing(LogItem& item, Sequence sequence) { item.committing(sequence); }
  static Tracking committed(LogItem& item, Lsn lsn) { return item.committed(lsn); }
  static bool has_home(const LogItem& item) { return item.has_home(); }
  static PushResult push(LogItem& item) { return item.push(); }
  static void release(LogItem& item, bool aborted) { item.release(aborted); }
  // Guarded by the lock of release_call.cc.
  static CallOfRelease*& call(LogItem& item) { return item.release_call_; }
  static const CallOfRelease* call(const LogItem& item) { return item.release_call_; }

 private:
  static bool take_pin(LogItem& item, bool leaves, bool even_tracked);
};

}  // namespace keel
