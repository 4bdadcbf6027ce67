// Lazy areas of a shard, and what a purge takes of them at a time.
#include "keel/base/check.h"
#include "range_table.h"

namespace keel {
namespace {

// A free gap up to this size is mapped over along with the lazy areas on both sides, to save a
// call. Larger ones stay where they are, so that a map() meanwhile finds them.
constexpr std::uint32_t kMaxGapPages = 256;

}  // namespace

void RangeTable::set_lazy(PageIndex area) {
  const RangeState state = entries_[area].state();
  KEEL_CHECK(state == RangeState::kLive || state == RangeState::kMapping,
             "area cannot turn lazy, page", area, static_cast<std::uint64_t>(state));
  lazy_pages_ += entries_[area].pages();
  totals_->lazy_pages.fetch_add(entries_[area].pages(), std::memory_order_relaxed);  // A count.
  push_lazy(area);
}

void RangeTable::push_lazy(PageIndex area) {
  RangeEntry& head = entries_[area];
  head.set_state(RangeState::kLazy);
  head.prev = lazy_last_;
  head.next = kNoIndex;
  if (lazy_last_ != kNoIndex) {
    entries_[lazy_last_].next = area;
  } else {
    lazy_first_ = area;
  }
  lazy_last_ = area;
  ++lazy_areas_;
}

void RangeTable::remove_lazy(PageIndex area) {
  const RangeEntry& head = entries_[area];
  if (area == lazy_mark_) {
    lazy_mark_ = head.prev;
  }
  if (head.prev != kNoIndex) {
    entries_[head.prev].next = head.next;
  } else {
    lazy_first_ = head.next;
  }
  if (head.next != kNoIndex) {
    entries_[head.next].prev = head.prev;
  } else {
    lazy_last_ = head.prev;
  }
  --lazy_areas_;
}

std::optional<PageIndex> RangeTable::begin_over_lazy(const AreaRequest& request) {
  const PageIndex area = lazy_first_;
  if (area == kNoIndex || entries_[area].pages() != request.pages ||
      entries_[area].guard() != request.guard) {
    return std::nullopt;
  }
  remove_lazy(area);
  RangeEntry& head = entries_[area];
  lazy_pages_ -= request.pages;
  totals_->lazy_pages.fetch_sub(request.pages, std::memory_order_relaxed);  // Counts, both.
  // Until the new frames are all in place the old ones' mappings may still be there, and if that
  // fails they stay: so the area counts both, until it is live. It needs no gap.
  totals_->mappings.fetch_sub(1, std::memory_order_relaxed);
  area_mappings_ += request.mappings;
  head.set_state(RangeState::kMapping);
  head.set_number(head.number() + request.mappings);
  head.owner = request.owner;
  return area;
}

// Neighbours --------------------------------------------------------------------------------------

// The range of this shard that ends right before `first`; none if a purge holds it.
std::optional<RangeTable::Neighbour> RangeTable::below(PageIndex first) const {
  if (first <= first_ + covered_) {
    return std::nullopt;
  }
  const PageIndex last = first - 1;
  if (blocks_.is_clear(last)) {
    return Neighbour{blocks_.gap_begin(last), first, Kind::kGap};
  }
  const RangeEntry& entry = entries_[last];
  PageIndex head = last;
  if (entry.state() == RangeState::kFreeTail) {
    return Neighbour{first - entry.pages(), first, Kind::kRun};
  }
  if (entry.state() == RangeState::kInterior) {
    head = last - entry.pages();
  }
  if (head < first_ || head + entries_[head].pages() != first) {
    return std::nullopt;
  }
  switch (entries_[head].state()) {
    case RangeState::kFreeHead: return Neighbour{head, first, Kind::kRun};
    case RangeState::kPooled: return Neighbour{head, first, Kind::kPooled};
    default:
      if (!is_area(entries_[head].state())) {
        return std::nullopt;
      }
      return Neighbour{head, first, Kind::kArea};
  }
}

// The range of this shard that begins at `end`; none if a purge holds it.
std::optional<RangeTable::Neighbour> RangeTable::above(PageIndex end) const {
  if (end >= end_) {
    return std::nullopt;
  }
  if (blocks_.is_clear(end)) {
    return Neighbour{end, blocks_.gap_end(end), Kind::kGap};
  }
  const RangeEntry& head = entries_[end];
  if (head.state() == RangeState::kFreeHead) {
    return Neighbour{end, end + head.pages(), Kind::kRun};
  }
  if (head.state() == RangeState::kPooled) {
    return Neighbour{end, end + head.pages(), Kind::kPooled};
  }
  if (is_area(head.state())) {
    return Neighbour{end, end + head.pages(), Kind::kArea};
  }
  return std::nullopt;
}

// A lazy area beside a slice goes along, unless it reaches into the next shard.
bool RangeTable::joins(const Neighbour& range) const {
  return range.kind == Kind::kArea && entries_[range.first].state() == RangeState::kLazy &&
         range.end <= end_;
}

// First page of the lazy area next below `first`, right there or beyond a small gap.
std::optional<PageIndex> RangeTable::lazy_below(PageIndex first) const {
  auto range = below(first);
  if (range && range->kind != Kind::kArea && range->end - range->first <= kMaxGapPages) {
    range = below(range->first);
  }
  if (range && joins(*range)) {
    return range->first;
  }
  return std::nullopt;
}

std::optional<PageIndex> RangeTable::lazy_above(PageIndex end) const {
  auto range = above(end);
  if (range && range->kind != Kind::kArea && range->end - range->first <= kMaxGapPages) {
    range = above(range->end);
  }
  if (range && joins(*range)) {
    return range->first;
  }
  return std::nullopt;
}

// Purge -------------------------------------------------------------------------------------------

void RangeTable::claim_area(PageIndex area, PurgeSlice& slice) {
  RangeEntry& head = entries_[area];
  remove_lazy(area);
  head.set_state(RangeState::kPurging);
  ++slice.areas;
  slice.area_pages += head.pages();
  slice.mappings += head.number();
}

// Free pages between lazy areas: taken, so that nobody maps what is being mapped over.
void RangeTable::claim_free(const Neighbour& range) {
  if (range.kind == Kind::kRun) {
    remove_run(range.first);
  } else if (range.kind == Kind::kPooled) {
    unpool(range.first);
  } else {
    blocks_.take(range.first, range.end - range.first);
    if (spare_block_ == blocks_.block_over(range.first)) {
      spare_block_ = kNoIndex;
    }
  }
  entries_[range.first].set(RangeState::kFreeBusy, range.end - range.first);
}

std::optional<PurgeSlice> RangeTable::claim_lazy(const PurgeBudget& budget) {
  if (lazy_first_ == kNoIndex) {
    return std::nullopt;
  }
  PurgeSlice slice{.first = lazy_first_, .pages = entries_[lazy_first_].pages()};
  claim_area(slice.first, slice);
  if (is_spanning(slice.first)) {
    return slice;
  }
  const auto fits = [&](PageIndex area, PageIndex from, PageIndex to) {
    return to - from <= budget.pages && slice.mappings + entries_[area].number() <= budget.mappings;
  };
  PageIndex end = slice.first + slice.pages;
  for (auto area = lazy_below(slice.first); area && fits(*area, *area, end);
       area = lazy_below(slice.first)) {
    if (*area + entries_[*area].pages() != slice.first) {
      claim_free(*below(slice.first));
    }
    claim_area(*area, slice);
    slice.first = *area;
  }
  for (auto area = lazy_above(end);
       area && fits(*area, slice.first, *area + entries_[*area].pages()); area = lazy_above(end)) {
    if (*area != end) {
      claim_free(*above(end));
    }
    claim_area(*area, slice);
    end = *area + entries_[*area].pages();
  }
  slice.pages = end - slice.first;
  return slice;
}

// Once, also if the purge is abandoned and begun again: what is gone stays one piece.
void RangeTable::note_cut(PageIndex area) {
  RangeEntry& head = entries_[area];
  KEEL_CHECK(head.state() == RangeState::kPurging && !head.cut(), "cut of the area at page", area);
  head.count = (head.count | RangeEntry::kCutBit) + 1;
  ++area_mappings_;
}

void RangeTable::finish_purge(const PurgeSlice& slice) {
  const PageIndex end = slice.first + slice.pages;
  for (PageIndex at = slice.first; at < end;) {
    RangeEntry& head = entries_[at];
    const std::uint32_t pages = head.pages();
    if (head.state() == RangeState::kPurging) {
      retire(at);
      if (in_block(at) || !pool(at, pages)) {
        give_back(at, pages);
      }
    } else {
      KEEL_CHECK(head.state() == RangeState::kFreeBusy, "range is not being purged, page", at);
      head.set_state(RangeState::kNone);
      give_back(at, pages);
    }
    at += pages;
  }
}

void RangeTable::abandon_purge(const PurgeSlice& slice) {
  const PageIndex end = slice.first + slice.pages;
  for (PageIndex at = slice.first; at < end;) {
    const std::uint32_t pages = entries_[at].pages();
    if (entries_[at].state() == RangeState::kPurging) {
      push_lazy(at);
    } else {
      entries_[at].set_state(RangeState::kNone);
      give_back(at, pages);
    }
    at += pages;
  }
}

}  // namespace keel
