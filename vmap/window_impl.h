// The parts of a window: its addresses, its purges, its counters. Private to vmap.
#pragma once

#include <atomic>
#include <optional>
#include <span>

#include "address_space.h"
#include "keel/base/check.h"
#include "keel/base/mutex.h"
#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"

namespace keel {

// What a list of frames costs to map.
struct FrameListShape {
  std::uint64_t pages = 0;
  std::uint64_t runs = 0;
};

struct Window::Impl : MetadataObject {
  Impl(const FrameStore& frame_store, const WindowConfig& config);
  ~Impl();

  Status open(unsigned shards);

  // Mapping (window.cc).
  [[nodiscard]] Result<FrameListShape> measure(JoinedSource& frames) const;
  [[nodiscard]] Status check_shape(const FrameListShape& shape, const MapOptions& options) const;
  [[nodiscard]] Result<void*> try_map(JoinedSource& frames, const FrameListShape& shape,
                                      const MapOptions& options, bool everywhere);
  [[nodiscard]] Result<PageIndex> reserve(const FrameListShape& shape, const MapOptions& options,
                                          bool everywhere);
  [[nodiscard]] bool charge_mappings(std::uint64_t count);
  [[nodiscard]] Status install(JoinedSource& frames, PageIndex area, std::uint64_t pages) const;
  [[nodiscard]] int alias(const FrameRun& run, std::byte* at) const;
  void undo(PageIndex area, std::uint64_t pages);
  [[nodiscard]] int map_nothing(PageIndex first, std::uint64_t pages) const;

  // Purging (window_purge.cc).
  struct Removal {
    Shard* shard = nullptr;
    PurgeSlice slice;
    std::uint32_t done = 0;  // pages; less than the slice's only for an area too large for one call
  };
  Status purge() KEEL_EXCLUDES(purge_lock);
  bool purge_one_slice() KEEL_EXCLUDES(purge_lock);
  [[nodiscard]] bool claim(Shard& shard, const PurgeBudget& budget)
      KEEL_REQUIRES(purge_lock, shard.lock);
  [[nodiscard]] bool claim_marked(Shard& shard) KEEL_REQUIRES(purge_lock);
  [[nodiscard]] bool claim_anywhere(const PurgeBudget& budget) KEEL_REQUIRES(purge_lock);
  [[nodiscard]] int remove(std::uint32_t max_pages) KEEL_REQUIRES(purge_lock);
  void finish_removal() KEEL_REQUIRES(purge_lock);
  [[nodiscard]] bool charge_cut() KEEL_REQUIRES(purge_lock);
  void purge_for(std::uint64_t pages) KEEL_EXCLUDES(purge_lock);
  [[nodiscard]] bool past_threshold() const {
    return space.totals().lazy_pages.load(std::memory_order_relaxed) > lazy_max;  // A count.
  }

  // Looking (window_reports.cc). Addresses are of the window where a page is asked for.
  [[nodiscard]] std::byte* address_of(PageIndex page) const {
    return base + (std::size_t{page} << kPageShift);
  }
  [[nodiscard]] bool contains(const void* address) const {
    const auto* at = static_cast<const std::byte*>(address);
    return at >= base && at < base + bytes;
  }
  [[nodiscard]] PageIndex page_of(const void* address) const {
    return static_cast<PageIndex>(
        static_cast<std::size_t>(static_cast<const std::byte*>(address) - base) >> kPageShift);
  }
  // True for addresses at which an area may begin.
  [[nodiscard]] bool is_page(const void* address) const {
    return contains(address) && reinterpret_cast<std::uintptr_t>(address) % kPageBytes == 0;
  }
  [[nodiscard]] VmapArea describe(PageIndex area) const;
  [[nodiscard]] VmapRange show(const RangeTable& table, PageIndex area) const;
  [[nodiscard]] std::size_t gather(Shard& shard, PageIndex& cursor,
                                   std::span<VmapRange> batch) const;
  [[nodiscard]] BugReport diagnose(const void* address, const char* call) const;

  const FrameStore& store;
  const std::size_t bytes;
  const std::uint64_t max_mappings;
  const std::uint64_t lazy_max;
  const bool copies_mappings;  // of the direct map, advice and all; else aliases map the file anew
  std::byte* base = nullptr;
  AddressSpace space;

  TurnMutex purge_lock{LockRank::kPurgeTurn, LockRank::kPurge};
  std::optional<Removal> removal KEEL_GUARDED_BY(purge_lock);  // begun and not finished
  unsigned next_shard KEEL_GUARDED_BY(purge_lock) = 0;
  // A hint that spares map() a wait at the threshold; relaxed, nothing is published with it.
  std::atomic<bool> purging{false};

  // Counts; relaxed, nothing is published with them.
  std::atomic<std::uint64_t> map_retries{0};
  std::atomic<std::uint64_t> purges{0};
  std::atomic<std::uint64_t> purged_pages{0};
  std::atomic<std::uint64_t> purge_slices{0};
  std::atomic<std::uint64_t> purge_calls{0};
  std::atomic<std::uint64_t> purge_failures{0};
};

}  // namespace keel
