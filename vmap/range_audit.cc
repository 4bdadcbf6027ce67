// The walk over a whole shard that says whether it adds up.
#include "keel/base/check.h"
#include "range_table.h"

namespace keel {

struct RangeTable::Census {
  std::uint32_t free_pages = 0;
  std::uint32_t lazy_pages = 0;
  std::uint32_t lazy_areas = 0;
  std::uint32_t free_runs = 0;
  std::uint32_t pooled_pages = 0;
  std::uint64_t area_mappings = 0;
  std::uint64_t gaps = 0;
  bool after_run = false;
  bool after_nothing = false;
};

void RangeTable::audit() const {
  Census census;
  for (PageIndex at = first_ + covered_; at < end_;) {
    const auto range = above(at);
    const PageIndex end = range ? range->end : at + entries_[at].pages();
    KEEL_CHECK(end > at && (end <= end_ || is_area(entries_[at].state())), "range at page", at,
               end);
    if (range) {
      audit_range(*range, census);
    } else {
      KEEL_CHECK(entries_[at].state() == RangeState::kFreeBusy, "no range begins at page", at,
                 entries_[at].tag);
      census.free_pages += end - at;
      census.after_run = false;
    }
    at = end;
  }
  for (PageIndex at = first_; at < end_; ++at) {
    const bool nothing = maps_nothing(at);
    census.gaps += nothing && !census.after_nothing ? 1 : 0;
    census.after_nothing = nothing;
  }
  KEEL_CHECK(census.free_pages == free_pages_, "free pages", census.free_pages, free_pages_);
  KEEL_CHECK(census.lazy_pages == lazy_pages_, "lazy pages", census.lazy_pages, lazy_pages_);
  KEEL_CHECK(census.area_mappings == area_mappings_, "mappings", census.area_mappings,
             area_mappings_);
  KEEL_CHECK(census.gaps == gaps_, "gaps", census.gaps, gaps_);
  KEEL_CHECK(census.lazy_areas == lazy_areas_, "lazy areas", census.lazy_areas, lazy_areas_);
  audit_free_lists(census);
  audit_lazy_list();
  blocks_.audit();
}

void RangeTable::audit_range(Neighbour range, Census& census) const {
  const std::uint32_t pages = range.end - range.first;
  if (range.kind != Kind::kArea) {
    const auto back = below(range.end);
    KEEL_CHECK(back && back->first == range.first && back->kind == range.kind,
               "free range is not found from its end, page", range.first);
    KEEL_CHECK(range.kind != Kind::kRun || !census.after_run, "neighbouring free runs",
               range.first);
    census.free_runs += range.kind == Kind::kRun ? 1 : 0;
    census.pooled_pages += range.kind == Kind::kPooled ? pages : 0;
    census.free_pages += pages;
  } else {
    const RangeEntry& head = entries_[range.first];
    const PageIndex last = (range.end <= end_ ? range.end : end_) - 1;
    KEEL_CHECK(area_containing(last) == range.first, "last page of the area at page", range.first);
    KEEL_CHECK(
        !in_block(range.first) || blocks_.block_over(range.first) == blocks_.block_over(last),
        "slot past the end of its block, page", range.first, pages);
    census.area_mappings += head.number();
    const bool lazy = head.state() == RangeState::kLazy;
    census.lazy_areas += lazy ? 1 : 0;
    census.lazy_pages += lazy || head.state() == RangeState::kPurging ? pages : 0;
  }
  census.after_run = range.kind == Kind::kRun;
}

void RangeTable::audit_free_lists(const Census& census) const {
  std::uint32_t runs = 0;
  for (unsigned level = 0; level < FreeBins::kLevels; ++level) {
    for (unsigned sub = 0; sub < FreeBins::kSub; ++sub) {
      const FreeBins::Bin bin{level, sub};
      std::uint32_t prev = kNoIndex;
      for (std::uint32_t run = bins_.head(bin); run != kNoIndex; run = entries_[run].next) {
        KEEL_CHECK(entries_[run].state() == RangeState::kFreeHead, "not a free run in a bin", run);
        KEEL_CHECK(FreeBins::bin_of(entries_[run].pages()) == bin, "run in the wrong bin", run);
        KEEL_CHECK(entries_[run].prev == prev, "link back in a bin", run);
        prev = run;
        ++runs;
      }
    }
  }
  KEEL_CHECK(runs == census.free_runs, "free runs in bins", runs, census.free_runs);
  std::uint32_t pooled = 0;
  for (std::uint32_t pages = 1; pages <= kMaxPooledPages; ++pages) {
    for (std::uint32_t at = pools_[pages]; at != kNoIndex; at = entries_[at].next) {
      KEEL_CHECK(entries_[at].state() == RangeState::kPooled, "not pooled in a pool", at);
      KEEL_CHECK(entries_[at].pages() == pages, "range in the wrong pool", at);
      pooled += pages;
    }
  }
  KEEL_CHECK(pooled == census.pooled_pages && pooled == pooled_pages_, "pooled pages", pooled,
             census.pooled_pages, pooled_pages_);
}

void RangeTable::audit_lazy_list() const {
  std::uint32_t found = 0;
  PageIndex prev = kNoIndex;
  for (PageIndex area = lazy_first_; area != kNoIndex; area = entries_[area].next) {
    KEEL_CHECK(entries_[area].state() == RangeState::kLazy, "not lazy in the lazy list", area);
    KEEL_CHECK(entries_[area].prev == prev, "link back in the lazy list", area);
    prev = area;
    ++found;
  }
  KEEL_CHECK(found == lazy_areas_ && prev == lazy_last_, "lazy list", found, lazy_areas_);
}

}  // namespace keel
