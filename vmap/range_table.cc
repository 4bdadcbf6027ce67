// Where free pages are kept: runs in bins, ranges in pools, clear pages in blocks.
#include "range_table.h"

#include <algorithm>

#include "keel/base/check.h"
#include "keel/base/units.h"

namespace keel {
namespace {

// Open blocks that a quick search looks into before it makes a new block.
constexpr std::uint32_t kQuickProbes = 16;

// At most this part of a shard waits in pools.
constexpr std::uint32_t kPooledPart = 8;

}  // namespace

void RangeTable::open(RangeEntry* entries, PageIndex first, std::uint32_t pages, VmapBlock* blocks,
                      std::uint32_t block_pages, WindowTotals& totals) {
  entries_ = entries;
  totals_ = &totals;
  first_ = first;
  end_ = first + pages;
  free_pages_ = pages;
  pools_.fill(kNoIndex);
  blocks_.open(blocks, first, pages, block_pages);
  totals.mappings.fetch_add(gaps_, std::memory_order_relaxed);  // A count.
  insert_run(first, pages);
}

// Runs --------------------------------------------------------------------------------------------

void RangeTable::insert_run(PageIndex first, std::uint32_t pages) {
  const FreeBins::Bin bin = FreeBins::bin_of(pages);
  const PageIndex next = bins_.head(bin);
  entries_[first + pages - 1].set(RangeState::kFreeTail, pages);
  RangeEntry& head =
      entries_[first];  // After the tail: of a run of one page, the head's tag stays.
  head.set(RangeState::kFreeHead, pages);
  head.prev = kNoIndex;
  head.next = next;
  if (next != kNoIndex) {
    entries_[next].prev = first;
  }
  bins_.set_head(bin, first);
}

void RangeTable::remove_run(PageIndex first) {
  RangeEntry& head = entries_[first];
  KEEL_ASSERT(head.state() == RangeState::kFreeHead, "not a free run, page", first);
  if (head.prev != kNoIndex) {
    entries_[head.prev].next = head.next;
  } else {
    bins_.set_head(FreeBins::bin_of(head.pages()), head.next);
  }
  if (head.next != kNoIndex) {
    entries_[head.next].prev = head.prev;
  }
  entries_[first + head.pages() - 1].set_state(RangeState::kNone);
  head.set_state(RangeState::kNone);
}

// Joins the pages with free runs on both sides and puts the run in its bin. Does not count them.
void RangeTable::release(PageIndex first, std::uint32_t pages) {
  PageIndex end = first + pages;
  if (const auto left = below(first); left && left->kind == Kind::kRun) {
    remove_run(left->first);
    first = left->first;
  }
  if (end < end_ && entries_[end].state() == RangeState::kFreeHead) {
    const PageIndex right = end;
    end += entries_[right].pages();
    remove_run(right);
  }
  insert_run(first, end - first);
}

// The O(1) search looks only where every run fits. Before giving up (which would cost a purge) the
// one bin that mixes fitting runs with smaller ones is walked.
std::uint32_t RangeTable::find_run(std::uint32_t pages, Effort effort) const {
  if (const std::uint32_t found = bins_.find(pages);
      found != kNoIndex || effort == Effort::kQuick) {
    return found;
  }
  std::uint32_t run = bins_.head(FreeBins::bin_of(pages));
  while (run != kNoIndex && entries_[run].pages() < pages) {
    run = entries_[run].next;
  }
  return run;
}

std::optional<PageIndex> RangeTable::take_pooled(std::uint32_t pages) {
  if (pages > kMaxPooledPages || pools_[pages] == kNoIndex) {
    return std::nullopt;
  }
  const PageIndex first = pools_[pages];
  unpool(first);
  return first;
}

std::optional<PageIndex> RangeTable::take_run(std::uint32_t pages, Effort effort) {
  const std::uint32_t run = find_run(pages, effort);
  if (run == kNoIndex) {
    return std::nullopt;
  }
  const std::uint32_t rest = entries_[run].pages() - pages;
  remove_run(run);
  if (rest != 0) {
    insert_run(run + pages, rest);
  }
  return run;
}

// Pools -------------------------------------------------------------------------------------------

// Keeps a just-freed range as it is for the next area of its size, which then costs no split, no
// join and a list operation. False if the pools have enough.
bool RangeTable::pool(PageIndex first, std::uint32_t pages) {
  if (pages > kMaxPooledPages || pooled_pages_ + pages > this->pages() / kPooledPart) {
    return false;
  }
  RangeEntry& head = entries_[first];
  head.set(RangeState::kPooled, pages);
  head.prev = kNoIndex;
  head.next = pools_[pages];
  if (pools_[pages] != kNoIndex) {
    entries_[pools_[pages]].prev = first;
  }
  pools_[pages] = first;
  pooled_pages_ += pages;
  return true;
}

void RangeTable::unpool(PageIndex first) {
  RangeEntry& head = entries_[first];
  KEEL_ASSERT(head.state() == RangeState::kPooled, "not a pooled range, page", first);
  const std::uint32_t pages = head.pages();
  if (head.prev != kNoIndex) {
    entries_[head.prev].next = head.next;
  } else {
    pools_[pages] = head.next;
  }
  if (head.next != kNoIndex) {
    entries_[head.next].prev = head.prev;
  }
  head.set_state(RangeState::kNone);
  pooled_pages_ -= pages;
}

void RangeTable::yield_reserves() {
  for (std::uint32_t pages = 1; pages <= kMaxPooledPages && pooled_pages_ != 0; ++pages) {
    while (pools_[pages] != kNoIndex) {
      const PageIndex first = pools_[pages];
      unpool(first);
      release(first, pages);
    }
  }
  if (spare_block_ != kNoIndex) {
    dissolve(spare_block_);
  }
}

// Blocks ------------------------------------------------------------------------------------------

// First aligned place for a block in a free run.
std::optional<PageIndex> RangeTable::aligned_place(PageIndex run) const {
  const std::uint32_t size = blocks_.block_pages();
  const PageIndex place = first_ + static_cast<PageIndex>(round_up(run - first_, size));
  if (place + size > run + entries_[run].pages()) {
    return std::nullopt;
  }
  return place;
}

// The smallest run that may hold a block is tried first, so that blocks stand side by side; then
// one that holds a block wherever it begins.
bool RangeTable::add_block() {
  const std::uint32_t size = blocks_.block_pages();
  std::optional<PageIndex> place;
  std::uint32_t run = kNoIndex;
  for (const std::uint32_t wanted : {size, 2 * size - 1}) {
    run = bins_.find(wanted);
    if (run != kNoIndex && (place = aligned_place(run))) {
      break;
    }
  }
  if (!place) {
    return false;
  }
  const PageIndex end = run + entries_[run].pages();
  remove_run(run);
  if (run != *place) {
    insert_run(run, *place - run);
  }
  if (*place + size != end) {
    insert_run(*place + size, end - *place - size);
  }
  blocks_.add(*place);
  return true;
}

// Its slots become areas like others, its clear pages free runs.
void RangeTable::dissolve(PageIndex block) {
  const PageIndex end = block + blocks_.block_pages();
  std::array<Neighbour, kMaxBlockPages / 2 + 1> gaps;
  std::size_t count = 0;
  for (PageIndex at = block; at < end; ++at) {
    if (blocks_.is_clear(at)) {
      gaps[count++] = {at, blocks_.gap_end(at), Kind::kGap};
      at = gaps[count - 1].end - 1;
    }
  }
  blocks_.remove(block);
  if (spare_block_ == block) {
    spare_block_ = kNoIndex;
  }
  for (std::size_t i = 0; i < count; ++i) {
    release(gaps[i].first, gaps[i].end - gaps[i].first);
  }
}

// A block without a clear page stays: it has nothing to give.
void RangeTable::dissolve_blocks() {
  while (const auto block = blocks_.any_open()) {
    dissolve(*block);
  }
}

std::optional<PageIndex> RangeTable::begin_slot(const AreaRequest& request, Effort effort) {
  const bool quick = effort == Effort::kQuick;
  auto first = blocks_.carve(request.pages, quick ? kQuickProbes : ~0U);
  if (!first && add_block()) {
    first = blocks_.carve(request.pages, 1);  // The new block is the first of the open ones.
  }
  if (!first) {
    return std::nullopt;
  }
  if (blocks_.block_over(*first) == spare_block_) {
    spare_block_ = kNoIndex;
  }
  write_interior(*first, *first + 1, *first + request.pages);
  occupy(*first, request);
  return first;
}

// A second block that is all clear goes; one stays, or a map and purge of one slot in turns would
// make and dissolve it each time.
void RangeTable::give_back_to_block(PageIndex first, std::uint32_t pages) {
  const auto empty = blocks_.give(first, pages);
  if (!empty) {
    return;
  }
  if (spare_block_ == kNoIndex) {
    spare_block_ = *empty;
  } else {
    dissolve(*empty);
  }
}

// To where the pages came from. They are counted by the caller.
void RangeTable::give_back(PageIndex first, std::uint32_t pages) {
  if (in_block(first)) {
    give_back_to_block(first, pages);
  } else {
    release(first, pages);
  }
}

}  // namespace keel
