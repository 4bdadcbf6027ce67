// Areas of a shard: their births and ends, the mappings they cost, and those over several shards.
#include "keel/base/check.h"
#include "range_table.h"

namespace keel {

// The pages of a pooled range lead back to its first one still.
std::optional<PageIndex> RangeTable::begin_area(const AreaRequest& request, Effort effort) {
  if (effort == Effort::kThorough) {
    yield_reserves();
  }
  auto first = take_pooled(request.pages);
  if (!first) {
    first = take_run(request.pages, effort);
    if (!first) {
      return std::nullopt;
    }
    write_interior(*first, *first + 1, *first + request.pages);
  }
  occupy(*first, request);
  return first;
}

void RangeTable::occupy(PageIndex first, const AreaRequest& request) {
  RangeEntry& head = entries_[first];
  head.set(RangeState::kMapping, request.pages);
  head.count = request.mappings | (request.guard ? RangeEntry::kGuardBit : 0);
  head.owner = request.owner;
  free_pages_ -= request.pages;
  count_area(first, gaps_beside(first, first + request.pages, request.guard));
}

void RangeTable::write_interior(PageIndex area, PageIndex from, PageIndex to) {
  for (PageIndex page = from; page < to; ++page) {
    entries_[page].set(RangeState::kInterior, page - area);
    entries_[page].count = 0;
  }
}

void RangeTable::set_live(PageIndex area, std::uint32_t mappings, std::uint64_t cookie) {
  RangeEntry& head = entries_[area];
  KEEL_CHECK(head.state() == RangeState::kMapping, "area is not being mapped, page", area);
  if (const std::uint32_t gone = head.number() - mappings; gone != 0) {  // of a lazy one
    head.count = mappings | (head.guard() ? RangeEntry::kGuardBit : 0);
    area_mappings_ -= gone;
    totals_->mappings.fetch_sub(gone, std::memory_order_relaxed);  // A count.
  }
  head.prev = static_cast<std::uint32_t>(cookie);
  head.next = static_cast<std::uint32_t>(cookie >> 32);
  head.publish_live();
}

// From an area to pages of nobody, which remember it. They are counted as free, not yet kept so.
void RangeTable::retire(PageIndex area) {
  RangeEntry& head = entries_[area];
  const std::uint32_t pages = head.pages();
  const PageIndex end = is_spanning(area) ? end_ : area + pages;
  if (head.state() == RangeState::kPurging) {
    lazy_pages_ -= pages;
    totals_->lazy_pages.fetch_sub(pages, std::memory_order_relaxed);  // A count.
  }
  uncount_area(area, gaps_beside(area, end, head.guard() && !is_spanning(area)));
  head.set_state(RangeState::kNone);
  head.set_number(pages);
  free_pages_ += end - area;
}

void RangeTable::cancel(PageIndex area) {
  RangeEntry& head = entries_[area];
  KEEL_CHECK(head.state() == RangeState::kMapping, "area is not being mapped, page", area);
  const std::uint32_t pages = head.pages();
  retire(area);
  head.count = 0;  // It was never handed out, so there is nothing to remember.
  give_back(area, pages);
}

std::optional<PageIndex> RangeTable::area_containing(PageIndex page) const {
  const RangeEntry& entry = entries_[page];
  if (is_area(entry.state())) {
    return page;
  }
  if (entry.state() != RangeState::kInterior) {
    return std::nullopt;
  }
  const RangeEntry& head = entries_[page - entry.pages()];
  if (is_area(head.state()) && head.pages() > entry.pages()) {
    return page - entry.pages();
  }
  return std::nullopt;
}

std::optional<PageIndex> RangeTable::next_area(PageIndex& cursor) const {
  constexpr std::uint32_t kMaxSteps = 4096;
  cursor = cursor < first_ + covered_ ? first_ + covered_ : cursor;
  for (std::uint32_t step = 0; step < kMaxSteps && cursor < end_; ++step) {
    const RangeEntry& entry = entries_[cursor];
    const PageIndex here = cursor;
    const bool whole = is_area(entry.state()) || entry.state() == RangeState::kFreeHead;
    cursor += whole ? entry.pages() : 1;
    if (is_area(entry.state())) {
      return here;
    }
  }
  return std::nullopt;
}

// Mappings ----------------------------------------------------------------------------------------

// True for pages under which the reservation shows: free ones and guard pages. The shard's edges
// count as mapped: gaps are counted shard by shard, and one that goes on beyond counts twice.
bool RangeTable::maps_nothing(PageIndex page) const {
  const auto area = area_containing(page);
  if (!area) {
    return true;
  }
  const RangeEntry& head = entries_[*area];
  return head.guard() && page == *area + head.pages() - 1;
}

// How many more gaps there are with [first, end) mapped than without.
std::int64_t RangeTable::gaps_beside(PageIndex first, PageIndex end, bool guard) const {
  const bool left = first > first_ && maps_nothing(first - 1);
  const bool right = guard || (end < end_ && maps_nothing(end));
  return (left ? 1 : 0) + (right ? 1 : 0) - 1;
}

// The totals were charged with one gap, the most that an area can add.
void RangeTable::count_area(PageIndex area, std::int64_t gaps) {
  area_mappings_ += entries_[area].number();
  gaps_ += static_cast<std::uint64_t>(gaps);
  totals_->mappings.fetch_sub(static_cast<std::uint64_t>(1 - gaps), std::memory_order_relaxed);
}

void RangeTable::uncount_area(PageIndex area, std::int64_t gaps) {
  area_mappings_ -= entries_[area].number();
  gaps_ -= static_cast<std::uint64_t>(gaps);
  totals_->mappings.fetch_sub(entries_[area].number() + static_cast<std::uint64_t>(gaps),
                              std::memory_order_relaxed);
}

// Areas over several shards -----------------------------------------------------------------------

std::uint32_t RangeTable::free_at_end() const {
  const auto last = below(end_);
  return last && last->kind == Kind::kRun ? last->end - last->first : 0;
}

std::uint32_t RangeTable::free_at_begin() const {
  return entries_[first_].state() == RangeState::kFreeHead && covered_ == 0
             ? entries_[first_].pages()
             : 0;
}

PageIndex RangeTable::begin_spanning(const AreaRequest& request, std::uint32_t here) {
  const PageIndex area = end_ - here;
  const PageIndex run = end_ - free_at_end();
  remove_run(run);
  if (run != area) {
    insert_run(run, area - run);
  }
  RangeEntry& head = entries_[area];
  head.set(RangeState::kMapping, request.pages);
  head.count = request.mappings | (request.guard ? RangeEntry::kGuardBit : 0);
  head.owner = request.owner;
  write_interior(area, area + 1, end_);
  free_pages_ -= here;
  count_area(area, gaps_beside(area, end_, false));
  return area;
}

void RangeTable::cover(PageIndex area, std::uint32_t here, bool guard) {
  const std::uint32_t run = free_at_begin();
  remove_run(first_);
  if (run != here) {
    insert_run(first_ + here, run - here);
  }
  write_interior(area, first_, first_ + here);
  covered_ = here;
  free_pages_ -= here;
  const std::int64_t gaps = gaps_beside(first_, first_ + here, guard);
  gaps_ += static_cast<std::uint64_t>(gaps);
  totals_->mappings.fetch_add(static_cast<std::uint64_t>(gaps), std::memory_order_relaxed);
}

void RangeTable::finish_spanning(PageIndex area) {
  retire(area);
  release(area, end_ - area);
}

// The area is retired last, by the shard that it begins in; who frees it holds all their locks.
void RangeTable::uncover(bool guard) {
  const std::int64_t gaps = gaps_beside(first_, first_ + covered_, guard);
  gaps_ -= static_cast<std::uint64_t>(gaps);
  totals_->mappings.fetch_sub(static_cast<std::uint64_t>(gaps), std::memory_order_relaxed);
  free_pages_ += covered_;
  const std::uint32_t here = covered_;
  covered_ = 0;
  release(first_, here);
}

}  // namespace keel
