// RangeTable: who owns each page of the window. One small entry a page, no other memory.
//
// The first entry of a range says all about it; a free run's last entry repeats its length
// (boundary tag), so that neighbours are found and joined in O(1). An area's other entries lead
// back to its first.
//
// I1 Every page lies in exactly one range: a free run, an area, or a free run that a purge has
//    taken along (kFreeBusy).
// I2 No two neighbouring ranges are both free runs in the bins.
// I3 Tags of free ends and of areas stand only where such a range begins or ends. kInterior may be
//    stale: it is believed only if the first entry that it leads to is an area that covers it.
// I4 What a freed page remembers of the last area that began there survives until the page is used
//    again; it serves reports only.
// I5 An area counts its kernel mappings from its birth until a purge has removed them.
// Locks: none of its own; the window's lock guards it.
#pragma once

#include <cstdint>
#include <optional>

#include "keel/vmap/free_bins.h"
#include "keel/base/result.h"

namespace keel {

// Page of the window. 28 bits, so that a tag holds a length beside the state.
using PageIndex = std::uint32_t;
inline constexpr std::uint32_t kMaxWindowPages = (std::uint32_t{1} << 28) - 1;

enum class RangeState : std::uint8_t {
  kNone,      // nothing begins or ends here, as far as a free run is concerned
  kFreeHead,  // pages: of the run
  kFreeTail,  // pages: of the run
  kFreeBusy,  // first page of a free run that a purge has taken along
  kMapping,   // area whose mappings are being made
  kLive,
  kLazy,      // unmapped, aliases still there, in the lazy list
  kPurging,   // taken out of the lazy list by a purge
  kInterior,  // pages: back to the first page of the area
};

[[nodiscard]] constexpr bool is_area(RangeState state) {
  return state >= RangeState::kMapping && state <= RangeState::kPurging;
}

struct RangeEntry {
  std::uint32_t tag;  // state in the low four bits, pages above
  // Area: kernel mappings it may cost. Free: pages of the last area that began here, 0 if none.
  // The top bit says that the area has, or had, a guard page.
  std::uint32_t count;
  const char* owner;   // of the area, or of the last one
  std::uint32_t prev;  // free: in its bin; lazy: in the lazy list; live: low half of the cookie
  std::uint32_t next;  // likewise; high half

  static constexpr std::uint32_t kGuardBit = std::uint32_t{1} << 31;

  [[nodiscard]] RangeState state() const { return static_cast<RangeState>(tag & 15U); }
  [[nodiscard]] std::uint32_t pages() const { return tag >> 4; }
  [[nodiscard]] std::uint32_t number() const { return count & ~kGuardBit; }
  [[nodiscard]] bool guard() const { return (count & kGuardBit) != 0; }
  [[nodiscard]] std::uint64_t cookie() const { return std::uint64_t{next} << 32 | prev; }
  void set(RangeState state, std::uint32_t pages) {
    tag = pages << 4 | static_cast<std::uint32_t>(state);
  }
  void set_state(RangeState state) { set(state, pages()); }
  void set_number(std::uint32_t number) { count = (count & kGuardBit) | number; }
};
static_assert(sizeof(RangeEntry) == 24);

// Neighbouring ranges that one call of a purge covers.
struct PurgeSlice {
  PageIndex first = 0;
  std::uint32_t pages = 0;
  std::uint32_t areas = 0;
  std::uint32_t area_pages = 0;  // the rest are free gaps between
};

class RangeTable {
 public:
  RangeTable() = default;
  ~RangeTable();
  RangeTable(const RangeTable&) = delete;
  RangeTable& operator=(const RangeTable&) = delete;

  // Reserves the table for a window of `pages`, all free.
  [[nodiscard]] Status open(std::uint32_t pages);

  // Takes `pages` from a free run as an area in state kMapping.
  [[nodiscard]] std::optional<PageIndex> begin_area(std::uint32_t pages, std::uint32_t mappings,
                                                    const char* owner, bool guard);
  // kMapping -> kLive.
  void set_live(PageIndex area, std::uint64_t cookie);
  // kMapping -> free: its mappings are gone.
  void cancel(PageIndex area);
  // kLive or kMapping -> kLazy, last in the lazy list.
  void set_lazy(PageIndex area);

  // Takes the oldest lazy area and the lazy ones beside it, over small free gaps too, while the
  // whole stays within `max_pages` (one area may be larger). None if nothing is lazy.
  [[nodiscard]] std::optional<PurgeSlice> claim_lazy(std::uint32_t max_pages);
  // The slice's aliases are gone: its pages are free.
  void finish_purge(const PurgeSlice& slice);
  // They are not: its areas are lazy again, behind the others.
  void abandon_purge(const PurgeSlice& slice);

  [[nodiscard]] const RangeEntry& at(PageIndex page) const { return table_[page]; }
  // First page of the area that covers `page`.
  [[nodiscard]] std::optional<PageIndex> area_containing(PageIndex page) const;

  [[nodiscard]] std::uint32_t pages() const { return pages_; }
  [[nodiscard]] std::uint32_t free_pages() const { return free_pages_; }
  [[nodiscard]] std::uint32_t lazy_pages() const { return lazy_pages_; }
  [[nodiscard]] std::uint32_t lazy_areas() const { return lazy_areas_; }
  // Kernel mappings that the window costs at most: those of the areas, and the gap before the
  // first.
  [[nodiscard]] std::uint64_t mappings() const { return mappings_; }

  void audit() const;

 private:
  struct Census;

  [[nodiscard]] std::uint32_t find_run(std::uint32_t pages) const;
  void insert_run(PageIndex first, std::uint32_t pages);
  void remove_run(PageIndex first);
  void release(PageIndex first, std::uint32_t pages);
  void retire(PageIndex area);
  void push_lazy(PageIndex area);
  void remove_lazy(PageIndex area);
  [[nodiscard]] std::optional<PageIndex> range_ending_at(PageIndex end) const;
  [[nodiscard]] std::optional<PageIndex> lazy_below(PageIndex first) const;
  [[nodiscard]] std::optional<PageIndex> lazy_above(PageIndex end) const;
  void claim(PageIndex from, PageIndex to, PurgeSlice& slice);
  void claim_one(PageIndex range, PurgeSlice& slice);
  void audit_bins(const Census& census) const;
  void audit_lazy_list() const;

  RangeEntry* table_ = nullptr;
  std::uint32_t pages_ = 0;
  std::uint32_t free_pages_ = 0;
  std::uint32_t lazy_pages_ = 0;
  std::uint32_t lazy_areas_ = 0;
  std::uint64_t mappings_ = 1;
  PageIndex lazy_first_ = kNoIndex;
  PageIndex lazy_last_ = kNoIndex;
  FreeBins bins_;
};

}  // namespace keel
