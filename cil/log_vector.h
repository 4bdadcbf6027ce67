// LogVector: one item's formatted snapshot, in one allocation.
//
//   [LogVector | Region x layout.region_count | small area] [large area, page-aligned]
//
// I1 Owned by exactly one of: the item as its shadow, the item as its active vector, or a closed
//    checkpoint until it is stable.
// I2 A region of a log block and more stands in the large area at a page boundary, so its whole
//    blocks can be written with direct I/O from here. A smaller one stands in the small area.
// I3 A vector may hold any snapshot whose layout fits in capacity_bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "keel/cil/log_item.h"

namespace keel {

class Pool;

struct Region {
  std::byte* data;
  std::size_t bytes;
};

// What a snapshot needs of its vector.
struct SnapshotLayout {
  std::uint32_t region_count;
  bool ordered;
  std::size_t small_bytes;
  std::size_t large_bytes;
};

struct LogVector {
  LogItem* item;
  LogVector* next;             // in a closed checkpoint
  std::uint64_t order;         // of the last commit, when the checkpoint closed
  std::size_t capacity_bytes;  // of the whole allocation
  std::uint32_t block_bytes;   // of the log
  std::uint32_t region_count;  // formatted so far
  SnapshotLayout layout;       // an ordered one is tracked, not written
  std::byte* small_next;       // free part of the small area
  std::byte* small_end;
  std::byte* large_next;
  std::byte* large_end;
  std::uint64_t packed_bytes;  // what the snapshot adds to each stream
  std::uint64_t bulk_blocks;

  [[nodiscard]] Region* regions() { return reinterpret_cast<Region*>(this + 1); }
  [[nodiscard]] const Region* regions() const { return reinterpret_cast<const Region*>(this + 1); }
};
static_assert(sizeof(LogVector) % alignof(Region) == 0);

[[nodiscard]] SnapshotLayout layout_of(const ItemSize& size);

// Bytes of an allocation that holds such a snapshot.
[[nodiscard]] std::size_t log_vector_bytes(const SnapshotLayout& layout);

// Allocates an empty vector; nullptr if there is no memory.
[[nodiscard]] LogVector* allocate_log_vector(Pool& pool, const SnapshotLayout& layout,
                                             std::uint32_t block_bytes);

// Lays out an existing vector anew for a snapshot that must fit. No allocation.
void reset_log_vector(LogVector& vector, const SnapshotLayout& layout);

// Gives room for the next region and accounts for it.
[[nodiscard]] std::byte* append_region(LogVector& vector, std::size_t bytes);

// The journal's way to the private part of an item.
struct ItemAccess {
  static LogVector*& active(LogItem& item) { return item.active_; }
  static LogVector*& shadow(LogItem& item) { return item.shadow_; }
  static std::uint64_t& transaction(LogItem& item) { return item.transaction_; }
  static LogItem*& cil_next(LogItem& item) { return item.cil_next_; }
  static std::uint64_t& order(LogItem& item) { return item.order_; }
  static Bucket*& bucket(LogItem& item) { return item.bucket_; }
  static LogItem*& ail_next(LogItem& item) { return item.ail_next_; }
  static LogItem*& ail_previous(LogItem& item) { return item.ail_previous_; }
  static Pool*& pool(LogItem& item) { return item.pool_; }

  static void size(const LogItem& item, ItemSize& size) { item.size(size); }
  static void format(const LogItem& item, ItemFormatter& formatter) { item.format(formatter); }
  static void pin(LogItem& item);
  static void unpin(LogItem& item, bool aborted);
  static void committing(LogItem& item, Sequence sequence) { item.committing(sequence); }
  static void committed(LogItem& item, Lsn lsn) { item.committed(lsn); }
  static void release(LogItem& item, bool aborted) { item.release(aborted); }
};

}  // namespace keel
