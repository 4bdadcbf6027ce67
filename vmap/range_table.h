// RangeTable: who owns each page of one shard of the window. One small entry a page.
//
// The first entry of a range says all about it; a free run's last entry repeats its length
// (boundary tag), so that neighbours are found and joined in O(1). An area's other entries lead
// back to its first. Small areas stand in blocks (vmap_blocks.h), the others in runs of their own;
// both are areas alike to everything but the place that their pages go back to.
//
// I1 Every page lies in exactly one range: a free run, a pooled range, a gap of clear pages in a
//    block, an area, or free pages that a purge has taken along (kFreeBusy).
// I2 No two neighbouring ranges are both free runs in the bins.
// I3 Tags of free ends, pooled ranges and areas stand only where such a range begins or ends.
//    kInterior may be stale: it is believed only if the first entry that it leads to covers it.
// I4 What a freed page remembers of the last area that began there survives until the page is used
//    again; it serves reports only.
// I5 An area counts its kernel mappings from its birth until a purge has removed them. Together
//    with the gaps between (each a mapping of nothing) they are what the kernel counts, at most.
// I6 An area may reach past the shard's end, into the `covered` first pages of those that follow.
//    Only then does a table hold what another one's area owns; it is made and freed with all locks.
// Locks: none of its own; the shard's lock guards it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "keel/vmap/free_bins.h"
#include "range_entry.h"
#include "vmap_blocks.h"

namespace keel {

// Sums over all shards, for who asks often. Relaxed: they are counts and publish nothing.
struct WindowTotals {
  std::atomic<std::uint64_t> mappings{0};
  std::atomic<std::uint64_t> lazy_pages{0};
};

struct AreaRequest {
  std::uint32_t pages = 0;     // the guard page included
  std::uint32_t mappings = 0;  // of its frames
  const char* owner = "";
  bool guard = false;
};

// Neighbouring ranges that one call of a purge covers.
struct PurgeSlice {
  PageIndex first = 0;
  std::uint32_t pages = 0;
  std::uint32_t areas = 0;
  std::uint32_t area_pages = 0;  // the rest are free gaps between
  std::uint32_t mappings = 0;
};

// How much a slice may hold. One area may be more.
struct PurgeBudget {
  std::uint32_t pages;
  std::uint32_t mappings;
};

// How hard to look for room: by O(1) searches only, or also through what is held ready for the
// next areas and through every candidate.
enum class Effort : std::uint8_t { kQuick, kThorough };

class RangeTable {
 public:
  // Areas up to this size, in a run of their own, are kept whole for the next of their size.
  static constexpr std::uint32_t kMaxPooledPages = 256;

  // Entries are indexed by page of the window. All of [first, first + pages) is free.
  void open(RangeEntry* entries, PageIndex first, std::uint32_t pages, VmapBlock* blocks,
            std::uint32_t block_pages, WindowTotals& totals);

  // Takes pages as an area in state kMapping, from a run or as a slot of a block. The caller has
  // charged the totals with request.mappings + 1; what is less is given back.
  [[nodiscard]] std::optional<PageIndex> begin_area(const AreaRequest& request, Effort effort);
  [[nodiscard]] std::optional<PageIndex> begin_slot(const AreaRequest& request, Effort effort);
  // kLazy -> kMapping: the oldest lazy area, if it is just as long, to be mapped over as it is.
  // Charged as above; what its old mappings were charged is given back when it is live.
  [[nodiscard]] std::optional<PageIndex> begin_over_lazy(const AreaRequest& request);
  // kMapping -> kLive, with so many mappings.
  void set_live(PageIndex area, std::uint32_t mappings, std::uint64_t cookie);
  // kMapping -> free: its mappings are gone. Not for an area that reaches past the shard.
  void cancel(PageIndex area);
  // kLive or kMapping -> kLazy, last in the lazy list.
  void set_lazy(PageIndex area);

  // Remembers which areas are lazy now; has_marked() tells whether any of them still is. They are
  // the oldest, so that who claims until then has had them all, and not waited for later ones.
  void mark_lazy() { lazy_mark_ = lazy_last_; }
  [[nodiscard]] bool has_marked() const { return lazy_mark_ != kNoIndex; }
  // Takes the oldest lazy area and the lazy ones beside it, over small free gaps too, within the
  // budget. None if nothing is lazy.
  [[nodiscard]] std::optional<PurgeSlice> claim_lazy(const PurgeBudget& budget);
  // The area goes in pieces. The caller has charged the totals with one mapping more.
  void note_cut(PageIndex area);
  // The slice's aliases are gone: its pages are free.
  void finish_purge(const PurgeSlice& slice);
  // They are not: its areas are lazy again, behind the others.
  void abandon_purge(const PurgeSlice& slice);

  // Areas over several shards, step by step; the caller has the locks of all of them.
  // Free pages in one run at the shard's end, and at its beginning.
  [[nodiscard]] std::uint32_t free_at_end() const;
  [[nodiscard]] std::uint32_t free_at_begin() const;
  // The last `here` pages become an area's first ones.
  PageIndex begin_spanning(const AreaRequest& request, std::uint32_t here);
  // The first `here` pages become part of `area`, which began in an earlier shard.
  void cover(PageIndex area, std::uint32_t here, bool guard);
  // And back: the areas's own pages in this shard are free.
  void finish_spanning(PageIndex area);
  void uncover(bool guard);
  [[nodiscard]] bool is_spanning(PageIndex area) const {
    return area + entries_[area].pages() > end_;
  }

  // Joins what is held ready (pools, a spare block) with the free runs.
  void yield_reserves();
  // Makes every block a number of plain areas and free runs.
  void dissolve_blocks();

  [[nodiscard]] const RangeEntry& at(PageIndex page) const { return entries_[page]; }
  // First page of the area that covers `page`; it may lie in an earlier shard.
  [[nodiscard]] std::optional<PageIndex> area_containing(PageIndex page) const;
  // First area at or after the cursor, which goes past it. None too after some thousand pages
  // without one, so that a walk can be cut into short ones: the cursor is at end() at the end only.
  [[nodiscard]] std::optional<PageIndex> next_area(PageIndex& cursor) const;
  [[nodiscard]] bool in_block(PageIndex page) const { return blocks_.block_over(page).has_value(); }

  [[nodiscard]] PageIndex first() const { return first_; }
  [[nodiscard]] PageIndex end() const { return end_; }
  [[nodiscard]] std::uint32_t pages() const { return end_ - first_; }
  [[nodiscard]] std::uint32_t free_pages() const { return free_pages_; }
  [[nodiscard]] std::uint32_t lazy_pages() const { return lazy_pages_; }
  // True if the reservation shows at the shard's first page, and at its last.
  [[nodiscard]] bool begins_with_gap() const { return maps_nothing(first_); }
  [[nodiscard]] bool ends_with_gap() const { return maps_nothing(end_ - 1); }
  // Kernel mappings that the shard costs at most.
  [[nodiscard]] std::uint64_t mappings() const { return area_mappings_ + gaps_; }

  void audit() const;

 private:
  struct Census;
  enum class Kind : std::uint8_t { kRun, kPooled, kGap, kArea };
  struct Neighbour {
    PageIndex first;
    PageIndex end;
    Kind kind;
  };

  // Free runs, pools and blocks (range_table.cc).
  [[nodiscard]] std::uint32_t find_run(std::uint32_t pages, Effort effort) const;
  void insert_run(PageIndex first, std::uint32_t pages);
  void remove_run(PageIndex first);
  void release(PageIndex first, std::uint32_t pages);
  [[nodiscard]] bool pool(PageIndex first, std::uint32_t pages);
  void unpool(PageIndex first);
  [[nodiscard]] std::optional<PageIndex> take_pooled(std::uint32_t pages);
  [[nodiscard]] std::optional<PageIndex> take_run(std::uint32_t pages, Effort effort);
  [[nodiscard]] std::optional<PageIndex> aligned_place(PageIndex run) const;
  [[nodiscard]] bool add_block();
  void dissolve(PageIndex block);
  void give_back(PageIndex first, std::uint32_t pages);
  void give_back_to_block(PageIndex first, std::uint32_t pages);

  // Areas (range_areas.cc).
  void occupy(PageIndex first, const AreaRequest& request);
  void write_interior(PageIndex area, PageIndex from, PageIndex to);
  void count_area(PageIndex area, std::int64_t gaps);
  void uncount_area(PageIndex area, std::int64_t gaps);
  void retire(PageIndex area);
  [[nodiscard]] bool maps_nothing(PageIndex page) const;
  [[nodiscard]] std::int64_t gaps_beside(PageIndex first, PageIndex end, bool guard) const;

  // Purge (range_purge.cc).
  void push_lazy(PageIndex area);
  void remove_lazy(PageIndex area);
  [[nodiscard]] std::optional<Neighbour> below(PageIndex first) const;
  [[nodiscard]] std::optional<Neighbour> above(PageIndex end) const;
  [[nodiscard]] bool joins(const Neighbour& range) const;
  [[nodiscard]] std::optional<PageIndex> lazy_below(PageIndex first) const;
  [[nodiscard]] std::optional<PageIndex> lazy_above(PageIndex end) const;
  void claim_area(PageIndex area, PurgeSlice& slice);
  void claim_free(const Neighbour& range);

  void audit_range(Neighbour range, Census& census) const;
  void audit_free_lists(const Census& census) const;
  void audit_lazy_list() const;

  RangeEntry* entries_ = nullptr;
  WindowTotals* totals_ = nullptr;
  PageIndex first_ = 0;
  PageIndex end_ = 0;
  std::uint32_t covered_ = 0;  // first pages that belong to an area of an earlier shard
  std::uint32_t free_pages_ = 0;
  std::uint32_t lazy_pages_ = 0;
  std::uint32_t lazy_areas_ = 0;
  std::uint64_t area_mappings_ = 0;
  std::uint64_t gaps_ = 1;
  PageIndex lazy_first_ = kNoIndex;
  PageIndex lazy_last_ = kNoIndex;
  PageIndex lazy_mark_ = kNoIndex;    // youngest of the marked ones
  PageIndex spare_block_ = kNoIndex;  // one empty block stays, for the next slot
  std::uint32_t pooled_pages_ = 0;
  std::array<std::uint32_t, kMaxPooledPages + 1> pools_{};  // by size
  FreeBins bins_;
  VmapBlocks blocks_;
};

}  // namespace keel
