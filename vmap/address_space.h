// AddressSpace: the pages of the window in shards, each with its lock, table and blocks.
//
// A CPU has a home shard, where its mappings begin and its blocks are; what has no room there goes
// to the next shard, and only when no shard alone has room are all locks taken together: then
// blocks are dissolved and areas laid over the ends of several shards. So an area of any size has
// its place if there is one.
//
// I1 The locks of several shards are taken in the order of their index (ranks kWindow and up).
// I2 A page belongs to the shard that it lies in; an area to the shard of its first page.
// Threads: any, but for open().
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "range_table.h"

namespace keel {

struct Shard : MetadataObject {
  explicit Shard(LockRank rank) : lock(rank) {}

  // For who holds the locks of all shards, which the analysis cannot follow.
  [[nodiscard]] RangeTable& with_all_locks() KEEL_NO_THREAD_SAFETY_ANALYSIS { return table; }
  [[nodiscard]] std::uint64_t maps_with_all_locks() const KEEL_NO_THREAD_SAFETY_ANALYSIS {
    return maps;
  }

  mutable Mutex lock;
  RangeTable table KEEL_GUARDED_BY(lock);
  std::uint64_t maps KEEL_GUARDED_BY(lock) = 0;
};

class AddressSpace {
 public:
  // Who takes all locks holds as many; ThreadSanitizer follows no more than 64.
  static constexpr unsigned kMaxShards = 32;

  AddressSpace() = default;
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  // Reserves tables for `pages`, all free. shards 0: as the CPUs and the size suggest.
  [[nodiscard]] Status open(std::uint32_t pages, unsigned shards);

  // Takes pages as an area in state kMapping, as RangeTable::begin_area. `everywhere`: with all
  // locks together, if no shard alone has room.
  [[nodiscard]] std::optional<PageIndex> begin(const AreaRequest& request, bool everywhere);
  // Takes a lazy area of the same size instead, aliases and all.
  [[nodiscard]] std::optional<PageIndex> begin_over_lazy(const AreaRequest& request);
  // kMapping or kPurging (in a slice of its own) -> free, over however many shards it reaches.
  void free_spanning(PageIndex area);

  [[nodiscard]] unsigned count() const { return count_; }
  [[nodiscard]] Shard& shard(unsigned index) const { return *shards_[index]; }
  [[nodiscard]] Shard& shard_of(PageIndex page) const {
    const unsigned index = page / shard_pages_;
    return *shards_[index < count_ ? index : count_ - 1];
  }
  [[nodiscard]] PageIndex end_of(unsigned index) const {
    return index + 1 < count_ ? (index + 1) * shard_pages_ : pages_;
  }
  [[nodiscard]] std::uint32_t pages() const { return pages_; }
  // Read without a lock by find(), and otherwise under the lock of its shard.
  [[nodiscard]] const RangeEntry& entry(PageIndex page) const { return entries_[page]; }
  [[nodiscard]] WindowTotals& totals() { return totals_; }
  [[nodiscard]] const WindowTotals& totals() const { return totals_; }

  void audit() const;

  // Gaps that two neighbouring shards count each and the kernel once. With all locks.
  [[nodiscard]] unsigned gaps_counted_twice() const;

  // Holds the locks of all shards while it lives.
  class AllLocks {
   public:
    explicit AllLocks(const AddressSpace& space);
    ~AllLocks();
    AllLocks(const AllLocks&) = delete;
    AllLocks& operator=(const AllLocks&) = delete;

   private:
    const AddressSpace& space_;
  };

 private:
  [[nodiscard]] Status reserve_tables(std::uint32_t block_pages);
  [[nodiscard]] std::optional<PageIndex> begin_in_one(const AreaRequest& request, bool slot,
                                                      Effort effort);
  [[nodiscard]] std::optional<PageIndex> begin_everywhere(const AreaRequest& request);
  [[nodiscard]] std::optional<PageIndex> begin_spanning(const AreaRequest& request);
  [[nodiscard]] bool spans_from(unsigned index, std::uint32_t pages) const;

  WindowTotals totals_;
  std::uint32_t pages_ = 0;
  std::uint32_t shard_pages_ = 1;
  unsigned count_ = 0;
  std::array<std::unique_ptr<Shard>, kMaxShards> shards_;
  RangeEntry* entries_ = nullptr;
  std::size_t table_bytes_ = 0;
};

static_assert(static_cast<unsigned>(LockRank::kWindowLast) ==
                  static_cast<unsigned>(LockRank::kWindow) + AddressSpace::kMaxShards - 1,
              "a rank for each shard");

}  // namespace keel
