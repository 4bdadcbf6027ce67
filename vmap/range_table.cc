#include "range_table.h"

#include <sys/mman.h>

#include <algorithm>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {
namespace {

// A free gap up to this size is mapped over along with the lazy areas on both sides, to save a
// call. Larger ones stay in the bins, so that a map() meanwhile finds them.
constexpr std::uint32_t kMaxGapPages = 256;

}  // namespace

RangeTable::~RangeTable() {
  if (table_ != nullptr) {
    (void)os().munmap(table_, pages_ * sizeof(RangeEntry));  // Cannot be helped if it fails.
  }
}

Status RangeTable::open(std::uint32_t pages) {
  KEEL_CHECK(pages != 0 && pages <= kMaxWindowPages, "pages of a window", pages);
  void* mapped = nullptr;
  const std::size_t bytes = pages * sizeof(RangeEntry);
  const int error = os().mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the window's table, bytes", bytes);
  }
  table_ = static_cast<RangeEntry*>(mapped);
  pages_ = pages;
  free_pages_ = pages;
  insert_run(0, pages);
  return {};
}

// Free runs ---------------------------------------------------------------------------------------

void RangeTable::insert_run(PageIndex first, std::uint32_t pages) {
  const FreeBins::Bin bin = FreeBins::bin_of(pages);
  const PageIndex next = bins_.head(bin);
  table_[first + pages - 1].set(RangeState::kFreeTail, pages);
  RangeEntry& head = table_[first];  // After the tail: of a run of one page, the head's tag stays.
  head.set(RangeState::kFreeHead, pages);
  head.prev = kNoIndex;
  head.next = next;
  if (next != kNoIndex) {
    table_[next].prev = first;
  }
  bins_.set_head(bin, first);
}

void RangeTable::remove_run(PageIndex first) {
  RangeEntry& head = table_[first];
  KEEL_ASSERT(head.state() == RangeState::kFreeHead, "not a free run, page", first);
  if (head.prev != kNoIndex) {
    table_[head.prev].next = head.next;
  } else {
    bins_.set_head(FreeBins::bin_of(head.pages()), head.next);
  }
  if (head.next != kNoIndex) {
    table_[head.next].prev = head.prev;
  }
  table_[first + head.pages() - 1].set_state(RangeState::kNone);
  head.set_state(RangeState::kNone);
}

// Joins the pages with free neighbours and puts the run in its bin. Does not count them.
void RangeTable::release(PageIndex first, std::uint32_t pages) {
  const PageIndex end = first + pages;
  if (const auto left = range_ending_at(first);
      left && table_[*left].state() == RangeState::kFreeHead) {
    pages += table_[*left].pages();
    remove_run(*left);
    first -= pages - (end - first);
  }
  if (end < pages_ && table_[end].state() == RangeState::kFreeHead) {
    pages += table_[end].pages();
    remove_run(end);
  }
  insert_run(first, pages);
}

// The O(1) search looks only where every run fits. Before giving up (which would cost a purge) the
// one bin that mixes fitting runs with smaller ones is walked.
std::uint32_t RangeTable::find_run(std::uint32_t pages) const {
  if (const std::uint32_t found = bins_.find(pages); found != kNoIndex) {
    return found;
  }
  std::uint32_t run = bins_.head(FreeBins::bin_of(pages));
  while (run != kNoIndex && table_[run].pages() < pages) {
    run = table_[run].next;
  }
  return run;
}

// Areas -------------------------------------------------------------------------------------------

std::optional<PageIndex> RangeTable::begin_area(std::uint32_t pages, std::uint32_t mappings,
                                                const char* owner, bool guard) {
  const std::uint32_t run = find_run(pages);
  if (run == kNoIndex) {
    return std::nullopt;
  }
  const std::uint32_t rest = table_[run].pages() - pages;
  remove_run(run);
  if (rest != 0) {
    insert_run(run + pages, rest);
  }
  RangeEntry& head = table_[run];
  head.set(RangeState::kMapping, pages);
  head.count = mappings | (guard ? RangeEntry::kGuardBit : 0);
  head.owner = owner;
  for (std::uint32_t i = 1; i < pages; ++i) {
    table_[run + i].set(RangeState::kInterior, i);
    table_[run + i].count = 0;
  }
  free_pages_ -= pages;
  mappings_ += mappings;
  return run;
}

void RangeTable::set_live(PageIndex area, std::uint64_t cookie) {
  RangeEntry& head = table_[area];
  KEEL_CHECK(head.state() == RangeState::kMapping, "area is not being mapped, page", area);
  head.set_state(RangeState::kLive);
  head.prev = static_cast<std::uint32_t>(cookie);
  head.next = static_cast<std::uint32_t>(cookie >> 32);
}

// From an area to pages of nobody, which remember it.
void RangeTable::retire(PageIndex area) {
  RangeEntry& head = table_[area];
  mappings_ -= head.number();
  free_pages_ += head.pages();
  head.set_number(head.pages());
  head.set_state(RangeState::kNone);
}

void RangeTable::cancel(PageIndex area) {
  RangeEntry& head = table_[area];
  KEEL_CHECK(head.state() == RangeState::kMapping, "area is not being mapped, page", area);
  const std::uint32_t pages = head.pages();
  retire(area);
  head.count = 0;  // It was never handed out, so there is nothing to remember.
  release(area, pages);
}

void RangeTable::set_lazy(PageIndex area) {
  const RangeState state = table_[area].state();
  KEEL_CHECK(state == RangeState::kLive || state == RangeState::kMapping,
             "area cannot turn lazy, page", area, static_cast<std::uint64_t>(state));
  push_lazy(area);
}

void RangeTable::push_lazy(PageIndex area) {
  RangeEntry& head = table_[area];
  head.set_state(RangeState::kLazy);
  head.prev = lazy_last_;
  head.next = kNoIndex;
  if (lazy_last_ != kNoIndex) {
    table_[lazy_last_].next = area;
  } else {
    lazy_first_ = area;
  }
  lazy_last_ = area;
  lazy_pages_ += head.pages();
  ++lazy_areas_;
}

void RangeTable::remove_lazy(PageIndex area) {
  const RangeEntry& head = table_[area];
  (head.prev != kNoIndex ? table_[head.prev].next : lazy_first_) = head.next;
  (head.next != kNoIndex ? table_[head.next].prev : lazy_last_) = head.prev;
  lazy_pages_ -= head.pages();
  --lazy_areas_;
}

// Neighbours --------------------------------------------------------------------------------------

std::optional<PageIndex> RangeTable::area_containing(PageIndex page) const {
  const RangeEntry& entry = table_[page];
  if (is_area(entry.state())) {
    return page;
  }
  if (entry.state() != RangeState::kInterior) {
    return std::nullopt;
  }
  const RangeEntry& head = table_[page - entry.pages()];
  if (is_area(head.state()) && head.pages() > entry.pages()) {
    return page - entry.pages();
  }
  return std::nullopt;
}

// First page of the area or free run that ends right before `end`.
std::optional<PageIndex> RangeTable::range_ending_at(PageIndex end) const {
  if (end == 0) {
    return std::nullopt;
  }
  const RangeEntry& last = table_[end - 1];
  if (last.state() == RangeState::kFreeTail) {
    return end - last.pages();
  }
  if (last.state() == RangeState::kFreeHead) {
    return end - 1;
  }
  return area_containing(end - 1);
}

// First page of the lazy area next below `first`, right there or beyond a small gap.
std::optional<PageIndex> RangeTable::lazy_below(PageIndex first) const {
  std::optional<PageIndex> range = range_ending_at(first);
  if (range && table_[*range].state() == RangeState::kFreeHead &&
      table_[*range].pages() <= kMaxGapPages) {
    range = range_ending_at(*range);
  }
  if (range && table_[*range].state() == RangeState::kLazy) {
    return range;
  }
  return std::nullopt;
}

std::optional<PageIndex> RangeTable::lazy_above(PageIndex end) const {
  if (end < pages_ && table_[end].state() == RangeState::kFreeHead &&
      table_[end].pages() <= kMaxGapPages) {
    end += table_[end].pages();
  }
  if (end < pages_ && table_[end].state() == RangeState::kLazy) {
    return end;
  }
  return std::nullopt;
}

// Purge -------------------------------------------------------------------------------------------

void RangeTable::claim_one(PageIndex range, PurgeSlice& slice) {
  RangeEntry& head = table_[range];
  if (head.state() == RangeState::kLazy) {
    remove_lazy(range);
    head.set_state(RangeState::kPurging);
    ++slice.areas;
    slice.area_pages += head.pages();
    return;
  }
  // A free run between lazy areas: out of the bins, so that nobody maps what is being mapped over.
  remove_run(range);
  head.set_state(RangeState::kFreeBusy);
}

// Claims all ranges in [from, to), which lie beside the slice.
void RangeTable::claim(PageIndex from, PageIndex to, PurgeSlice& slice) {
  for (PageIndex at = from; at < to;) {
    const std::uint32_t pages = table_[at].pages();
    claim_one(at, slice);
    at += pages;
  }
  slice.pages += to - from;
  slice.first = std::min(slice.first, from);
}

std::optional<PurgeSlice> RangeTable::claim_lazy(std::uint32_t max_pages) {
  if (lazy_first_ == kNoIndex) {
    return std::nullopt;
  }
  PurgeSlice slice{.first = lazy_first_};
  claim(lazy_first_, lazy_first_ + table_[lazy_first_].pages(), slice);
  for (auto below = lazy_below(slice.first);
       below && slice.first - *below + slice.pages <= max_pages; below = lazy_below(slice.first)) {
    claim(*below, slice.first, slice);
  }
  for (auto above = lazy_above(slice.first + slice.pages); above;
       above = lazy_above(slice.first + slice.pages)) {
    const PageIndex end = *above + table_[*above].pages();
    if (end - slice.first > max_pages) {
      break;
    }
    claim(slice.first + slice.pages, end, slice);
  }
  return slice;
}

void RangeTable::finish_purge(const PurgeSlice& slice) {
  const PageIndex end = slice.first + slice.pages;
  for (PageIndex at = slice.first; at < end;) {
    RangeEntry& head = table_[at];
    const std::uint32_t pages = head.pages();
    if (head.state() == RangeState::kPurging) {
      retire(at);
    } else {
      KEEL_CHECK(head.state() == RangeState::kFreeBusy, "range is not being purged, page", at);
      head.set_state(RangeState::kNone);
    }
    at += pages;
  }
  release(slice.first, slice.pages);
}

void RangeTable::abandon_purge(const PurgeSlice& slice) {
  const PageIndex end = slice.first + slice.pages;
  for (PageIndex at = slice.first; at < end;) {
    const std::uint32_t pages = table_[at].pages();
    if (table_[at].state() == RangeState::kPurging) {
      push_lazy(at);
    } else {
      table_[at].set_state(RangeState::kNone);
      release(at, pages);
    }
    at += pages;
  }
}

// Audit -------------------------------------------------------------------------------------------

struct RangeTable::Census {
  std::uint32_t free_pages = 0;
  std::uint32_t lazy_pages = 0;
  std::uint32_t lazy_areas = 0;
  std::uint32_t free_runs = 0;
  std::uint64_t mappings = 1;
};

void RangeTable::audit() const {
  Census census;
  bool after_free = false;
  for (PageIndex at = 0; at < pages_;) {
    const RangeEntry& head = table_[at];
    const std::uint32_t pages = head.pages();
    const RangeState state = head.state();
    KEEL_CHECK(pages != 0 && pages <= pages_ - at, "length of the range at page", at, pages);
    if (state == RangeState::kFreeHead) {
      KEEL_CHECK(!after_free, "two neighbouring free runs, page", at);
      KEEL_CHECK(range_ending_at(at + pages) == at, "boundary tag of the free run at page", at);
      ++census.free_runs;
      census.free_pages += pages;
    } else if (state == RangeState::kFreeBusy) {
      census.free_pages += pages;
    } else {
      KEEL_CHECK(is_area(state), "no range begins at page", at, head.tag);
      KEEL_CHECK(area_containing(at + pages - 1) == at, "last page of the area at page", at, pages);
      census.mappings += head.number();
      census.lazy_pages += state == RangeState::kLazy ? pages : 0;
      census.lazy_areas += state == RangeState::kLazy ? 1 : 0;
    }
    after_free = state == RangeState::kFreeHead;
    at += pages;
  }
  KEEL_CHECK(census.free_pages == free_pages_, "free pages", census.free_pages, free_pages_);
  KEEL_CHECK(census.lazy_pages == lazy_pages_, "lazy pages", census.lazy_pages, lazy_pages_);
  KEEL_CHECK(census.lazy_areas == lazy_areas_, "lazy areas", census.lazy_areas, lazy_areas_);
  KEEL_CHECK(census.mappings == mappings_, "mappings", census.mappings, mappings_);
  audit_bins(census);
  audit_lazy_list();
}

void RangeTable::audit_bins(const Census& census) const {
  std::uint32_t found = 0;
  for (unsigned level = 0; level < FreeBins::kLevels; ++level) {
    for (unsigned sub = 0; sub < FreeBins::kSub; ++sub) {
      const FreeBins::Bin bin{level, sub};
      std::uint32_t prev = kNoIndex;
      for (std::uint32_t run = bins_.head(bin); run != kNoIndex; run = table_[run].next) {
        KEEL_CHECK(table_[run].state() == RangeState::kFreeHead, "not a free run in a bin", run);
        KEEL_CHECK(FreeBins::bin_of(table_[run].pages()) == bin, "run in the wrong bin", run);
        KEEL_CHECK(table_[run].prev == prev, "link back in a bin", run);
        prev = run;
        ++found;
      }
    }
  }
  KEEL_CHECK(found == census.free_runs, "free runs in bins", found, census.free_runs);
}

void RangeTable::audit_lazy_list() const {
  std::uint32_t found = 0;
  PageIndex prev = kNoIndex;
  for (PageIndex area = lazy_first_; area != kNoIndex; area = table_[area].next) {
    KEEL_CHECK(table_[area].state() == RangeState::kLazy, "not lazy in the lazy list", area);
    KEEL_CHECK(table_[area].prev == prev, "link back in the lazy list", area);
    prev = area;
    ++found;
  }
  KEEL_CHECK(found == lazy_areas_ && prev == lazy_last_, "lazy list", found, lazy_areas_);
}

}  // namespace keel
