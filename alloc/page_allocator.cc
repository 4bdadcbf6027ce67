#include "keel/alloc/page_allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "keel/base/check.h"

namespace keel {
namespace {

constexpr std::uint32_t kMaxBlock = std::uint32_t{1} << kMaxOrder;

// Uses of the first frame of a run in somebody's hands.
constexpr bool is_run(FrameUse use) { return use >= FrameUse::kBuffer; }

// Order of the smallest block that holds `pages`.
unsigned order_for(std::uint32_t pages) { return static_cast<unsigned>(std::bit_width(pages - 1)); }

unsigned floor_order(std::uint32_t pages) {
  return static_cast<unsigned>(std::bit_width(pages)) - 1;
}

}  // namespace

PageAllocator::PageAllocator(Pages capacity) : capacity_(static_cast<Index>(capacity.value())) {
  heads_.fill(kNone);
}

Result<std::unique_ptr<PageAllocator>> PageAllocator::create(Pages capacity) {
  if (capacity.value() == 0 || capacity.value() > std::uint64_t{1} << 31) {
    return Error{Errc::kInvalidArgument, 0, "page allocator over frames", capacity.value()};
  }
  std::unique_ptr<PageAllocator> made(new (std::nothrow) PageAllocator(capacity));
  if (made == nullptr) {
    return Error{Errc::kNoMemory, 0, "page allocator"};
  }
  const Status opened = made->open();
  if (!opened) {
    return opened.error();
  }
  return made;
}

// Rounded up, so that the buddy of any frame has a record (kAbsent, which is zero).
std::size_t PageAllocator::frames_bytes() const {
  return round_up(capacity_, kMaxBlock) * sizeof(Frame);
}

Status PageAllocator::open() {
  void* mapped = nullptr;
  const int error = os().mmap(nullptr, frames_bytes(), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of frame records, bytes", frames_bytes());
  }
  frames_ = static_cast<Frame*>(mapped);
  return {};
}

PageAllocator::~PageAllocator() {
  if (frames_ != nullptr) {
    (void)os().munmap(frames_, frames_bytes());  // Cannot be helped if it fails.
  }
}

Status PageAllocator::prepare(FrameRun run) {
  const auto first = reinterpret_cast<std::uintptr_t>(frames_ + run.first.value());
  const auto end = reinterpret_cast<std::uintptr_t>(frames_ + run.end().value());
  const std::uintptr_t from = round_down(first, kPageBytes);
  const std::size_t bytes = round_up(end, kPageBytes) - from;
  const int error = os().madvise(reinterpret_cast<void*>(from), bytes, MADV_POPULATE_WRITE);
  if (error < 0) {
    return system_error(-error, "populating frame records, bytes", bytes);
  }
  return {};
}

// Free blocks -------------------------------------------------------------------------------------

void PageAllocator::push_block(Index first, unsigned order) {
  Frame& head = frames_[first];
  FrameWord word = head.word();
  word.use = FrameUse::kFree;
  word.kind = static_cast<std::uint8_t>(order);
  head.set(word);
  head.prev = kNone;
  head.next = heads_[order];
  if (head.next != kNone) {
    frames_[head.next].prev = first;
  }
  heads_[order] = first;
  orders_ |= 1U << order;
  ++blocks_[order];
  free_ += std::uint64_t{1} << order;
}

void PageAllocator::unlink_block(Index first) {
  Frame& head = frames_[first];
  const FrameWord word = head.word();
  const unsigned order = word.kind;
  KEEL_ASSERT(word.use == FrameUse::kFree, "not a free block, frame", first);
  (head.prev != kNone ? frames_[head.prev].next : heads_[order]) = head.next;
  if (head.next != kNone) {
    frames_[head.next].prev = head.prev;
  }
  if (heads_[order] == kNone) {
    orders_ &= ~(1U << order);
  }
  head.set_use(FrameUse::kBody);
  --blocks_[order];
  free_ -= std::uint64_t{1} << order;
}

void PageAllocator::free_block(Index first, unsigned order) {
  while (order < kMaxOrder) {
    const Index buddy = first ^ (Index{1} << order);
    const FrameWord word = frames_[buddy].word();
    if (word.use != FrameUse::kFree || word.kind != order) {
      break;
    }
    unlink_block(buddy);
    first = std::min(first, buddy);
    ++order;
  }
  push_block(first, order);
}

// Frees any range as the largest aligned blocks that it is made of.
void PageAllocator::free_range(Index first, Index count) {
  while (count != 0) {
    const auto aligned = static_cast<unsigned>(std::countr_zero(first | kMaxBlock));
    const unsigned order = std::min(aligned, floor_order(count));
    free_block(first, order);
    first += Index{1} << order;
    count -= Index{1} << order;
  }
}

void PageAllocator::add(FrameRun run) {
  KEEL_CHECK(run.end().value() <= capacity_, "frames beyond the capacity", run.end().value());
  const auto first = static_cast<Index>(run.first.value());
  const auto count = static_cast<Index>(run.count.value());
  MutexLock lock(lock_);
  for (Index i = first; i < first + count; ++i) {
    KEEL_CHECK(frames_[i].word().use == FrameUse::kAbsent, "frame is present already", i);
    frames_[i].set({.use = FrameUse::kBody});
    frames_[i].set_owner("");
  }
  present_ += count;
  free_range(first, count);
  publish_hints();
}

void PageAllocator::publish_hints() {
  free_hint_.store(free_, std::memory_order_relaxed);        // Hints.
  present_hint_.store(present_, std::memory_order_relaxed);  // Hints.
}

bool PageAllocator::remove(FrameRun chunk) {
  const auto first = static_cast<Index>(chunk.first.value());
  const auto count = static_cast<Index>(chunk.count.value());
  KEEL_CHECK(is_power_of_two(count) && first % count == 0, "chunk is not aligned", first, count);
  MutexLock lock(lock_);
  const Index end = first + count;
  for (Index i = first; i < end; i += kMaxBlock) {
    const Index head = head_of(i);
    if (head == kNone) {
      return false;
    }
    const FrameWord word = frames_[head].word();
    if (word.use != FrameUse::kFree ||
        head + (Index{1} << word.kind) < std::min(end, i + kMaxBlock)) {
      return false;
    }
  }
  // All of it is free, so I1 makes it whole blocks, or part of one that is larger.
  for (Index i = first; i < end; i += kMaxBlock) {
    const Index head = head_of(i);
    const Index block_end = head + (Index{1} << frames_[head].word().kind);
    unlink_block(head);
    free_range(head, i - head);
    if (block_end > end) {
      free_range(end, block_end - end);
    }
  }
  for (Index i = first; i < end; ++i) {
    frames_[i].set({});
  }
  present_ -= count;
  publish_hints();
  return true;
}

// Allocate ----------------------------------------------------------------------------------------

// The first `pages` frames of the first block of `order`; the rest goes back.
PageAllocator::Index PageAllocator::take(Index pages, unsigned order, FrameUse use,
                                         const char* owner) {
  const Index first = heads_[order];
  unlink_block(first);
  Frame& head = frames_[first];
  head.set({.use = use, .pages = pages});
  head.next = kNone;
  head.set_owner(owner);
  free_range(first + pages, (Index{1} << order) - pages);
  return first;
}

std::optional<Pfn> PageAllocator::allocate(Pages pages, const char* owner) {
  if (pages.value() == 0 || pages > kMaxContiguous) {
    return std::nullopt;
  }
  const auto count = static_cast<Index>(pages.value());
  MutexLock lock(lock_);
  const std::uint32_t large_enough = orders_ & (~0U << order_for(count));
  if (large_enough == 0) {
    return std::nullopt;
  }
  const auto order = static_cast<unsigned>(std::countr_zero(large_enough));
  const Index first = take(count, order, FrameUse::kBuffer, owner);
  publish_hints();
  return Pfn(first);
}

// One run of up to `wanted` frames: all of them if one block has them, else the largest block.
PageAllocator::Index PageAllocator::take_run(Index wanted, const char* owner) {
  wanted = std::min(wanted, kMaxBlock);
  const std::uint32_t large_enough = orders_ & (~0U << order_for(wanted));
  if (large_enough != 0) {
    const auto order = static_cast<unsigned>(std::countr_zero(large_enough));
    return take(wanted, order, FrameUse::kScattered, owner);
  }
  KEEL_CHECK(orders_ != 0, "frames are counted as free that no list has", free_);
  const unsigned largest = floor_order(orders_);
  return take(std::min(wanted, Index{1} << largest), largest, FrameUse::kScattered, owner);
}

std::optional<Pfn> PageAllocator::gather(Pages pages, const char* owner) {
  MutexLock lock(lock_);
  if (pages.value() == 0 || pages.value() > free_) {
    return std::nullopt;
  }
  Index first = kNone;
  Index last = kNone;
  for (auto left = static_cast<Index>(pages.value()); left != 0;) {
    const Index run = take_run(left, owner);
    (last != kNone ? frames_[last].next : first) = run;
    last = run;
    left -= frames_[run].word().pages;
  }
  frames_[first].set_use(FrameUse::kChain);
  frames_[first].prev = static_cast<Index>(pages.value());
  frames_[first].area = kNone;
  publish_hints();
  return Pfn(first);
}

// Free and find -----------------------------------------------------------------------------------

// First frame of the block or run that `frame` lies in; kNone if it is absent. By I4, and since
// blocks are aligned, it is `frame` with some low bits cleared.
PageAllocator::Index PageAllocator::head_of(Index frame) const {
  for (unsigned order = 0; order <= kMaxOrder; ++order) {
    const Index at = frame & (~Index{0} << order);
    const FrameWord head = frames_[at].word();
    if (head.use == FrameUse::kAbsent && at == frame) {
      return kNone;
    }
    const bool is_free = head.use == FrameUse::kFree;
    const Index length = is_free ? Index{1} << head.kind : head.pages;
    if ((is_free || is_run(head.use)) && frame - at < length) {
      return at;
    }
  }
  KEEL_CHECK(false, "a present frame is in no block and no run", frame);
  return kNone;
}

FrameInfo PageAllocator::describe(Index frame) const {
  const Index at = head_of(frame);
  if (at == kNone) {
    return {};
  }
  const FrameUse use = frames_[at].word().use;
  const bool is_free = use == FrameUse::kFree;
  const Frame& source = frames_[is_free ? frame : at];
  FrameInfo info{.use = is_free || at == frame ? use : FrameUse::kBody,
                 .run = {Pfn(is_free ? frame : at), Pages(source.word().pages)}};
  info.owner = source.owner_name();
  info.of = use;
  return info;
}

FrameInfo PageAllocator::find(Pfn frame) const {
  KEEL_CHECK(frame.value() < capacity_, "frame beyond the capacity", frame.value());
  MutexLock lock(lock_);
  return describe(static_cast<Index>(frame.value()));
}

FrameInfo PageAllocator::free(Pfn frame) {
  KEEL_CHECK(frame.value() < capacity_, "frame beyond the capacity", frame.value());
  const auto first = static_cast<Index>(frame.value());
  MutexLock lock(lock_);
  const FrameInfo info = describe(first);
  if (info.use == FrameUse::kBuffer) {
    free_run(first);
    publish_hints();
  }
  return info;
}

// `pages` and `owner` stay in the record, for a report of a second free.
void PageAllocator::free_run(Index first) {
  frames_[first].set_use(FrameUse::kBody);
  free_range(first, frames_[first].word().pages);
}

void PageAllocator::free_runs_of_chain(Index first) {
  for (Index at = first; at != kNone;) {
    const Frame& head = frames_[at];
    const Index pages = head.word().pages;
    const Index next = head.next;
    KEEL_CHECK(is_run(head.word().use), "not a run of a chain, frame", at);
    frames_[at].set({.use = FrameUse::kBody});  // Nobody was ever given its direct-map address.
    free_range(at, pages);
    at = next;
  }
}

void PageAllocator::free_chain(Pfn first) {
  const std::array<Pfn, 1> one{first};
  free_batch(one);
}

void PageAllocator::free_batch(std::span<const Pfn> firsts) {
  MutexLock lock(lock_);
  for (const Pfn frame : firsts) {
    const auto first = static_cast<Index>(frame.value());
    switch (frames_[first].word().use) {
      case FrameUse::kChain:
      case FrameUse::kCachedChain: free_runs_of_chain(first); break;
      case FrameUse::kBuffer:
      case FrameUse::kSlab:
      case FrameUse::kCached: free_run(first); break;
      default: KEEL_CHECK(false, "free of what is no buffer's first frame", first);
    }
  }
  publish_hints();
}

ChainSource::ChainSource(const PageAllocator& allocator, Pfn first)
    : allocator_(allocator), first_(static_cast<std::uint32_t>(first.value())), at_(first_) {}

bool ChainSource::next(FrameRun& run) {
  if (at_ == PageAllocator::kNone) {
    return false;
  }
  const FrameRecord& head = allocator_.frames_[at_];
  KEEL_ASSERT(is_run(head.word().use), "not a run of a chain, frame", at_);
  run = {Pfn(at_), Pages(head.word().pages)};
  at_ = head.next;
  return true;
}

// Reports -----------------------------------------------------------------------------------------

PageCounts PageAllocator::counts() const {
  MutexLock lock(lock_);
  return {Pages(present_), Pages(free_)};
}

std::array<std::uint64_t, kMaxOrder + 1> PageAllocator::buddyinfo() const {
  MutexLock lock(lock_);
  return blocks_;
}

// Frame right behind the block, run or absent frame at `at`, which must begin there.
PageAllocator::Index PageAllocator::step_over(Index at) const {
  const FrameWord head = frames_[at].word();
  if (head.use == FrameUse::kFree) {
    return at + (Index{1} << head.kind);
  }
  if (head.use == FrameUse::kAbsent) {
    return at + 1;
  }
  if (is_run(head.use)) {
    return at + head.pages;
  }
  KEEL_CHECK(false, "a body frame where a block or run must begin", at);
  return at + 1;
}

namespace {

// Sums by owner in a fixed table: it must work when there is no memory at all.
class HolderSums {
 public:
  void take(const char* owner, std::uint64_t pages) {
    const auto end = sums_.begin() + static_cast<std::ptrdiff_t>(count_);
    auto found =
        std::find_if(sums_.begin(), end, [owner](const Holder& sum) { return sum.owner == owner; });
    if (found == end) {
      if (count_ == kOwners) {
        others_ += Pages(pages);
        return;
      }
      *found = {owner, Pages(0)};
      ++count_;
    }
    found->pages += Pages(pages);
  }

  std::size_t largest(std::span<Holder> out) {
    sums_[count_] = {"(others)", others_};
    const auto used = static_cast<std::ptrdiff_t>(count_ + (others_ != Pages(0) ? 1 : 0));
    std::sort(sums_.begin(), sums_.begin() + used,
              [](const Holder& a, const Holder& b) { return a.pages > b.pages; });
    const std::size_t filled = std::min(out.size(), static_cast<std::size_t>(used));
    std::copy_n(sums_.begin(), filled, out.begin());
    return filled;
  }

 private:
  static constexpr std::size_t kOwners = 64;
  std::array<Holder, kOwners + 1> sums_{};  // one more for the others
  std::size_t count_ = 0;
  Pages others_{};
};

}  // namespace

std::size_t PageAllocator::holders(std::span<Holder> largest) const {
  HolderSums sums;
  // No block or run crosses a boundary of the largest block, so each slice begins at one.
  for (Index slice = 0; slice < capacity_; slice += kMaxBlock) {
    MutexLock lock(lock_);
    const Index end = std::min(slice + kMaxBlock, capacity_);
    for (Index at = slice; at < end; at = step_over(at)) {
      const Frame& head = frames_[at];
      const FrameWord word = head.word();
      if (word.use == FrameUse::kBuffer || word.use == FrameUse::kSlab) {
        sums.take(head.owner_name(), word.pages);
      } else if (word.use == FrameUse::kChain) {
        sums.take(head.owner_name(), head.prev);
      }
    }
  }
  return sums.largest(largest);
}

Pages PageAllocator::idle() const {
  MutexLock lock(lock_);
  Pages sum{};
  for (Index at = 0; at < capacity_; at = step_over(at)) {
    const FrameWord word = frames_[at].word();
    if (word.use == FrameUse::kCached) {
      sum += Pages(word.pages);
    } else if (word.use == FrameUse::kCachedChain) {
      sum += Pages(frames_[at].prev);
    }
  }
  return sum;
}

// Audit -------------------------------------------------------------------------------------------

struct PageAllocator::FreeCensus {
  std::array<std::uint64_t, kMaxOrder + 1> blocks{};
  std::uint64_t free = 0;
  std::uint64_t present = 0;
};

void PageAllocator::audit() const {
  MutexLock lock(lock_);
  FreeCensus census;
  for (Index at = 0; at < capacity_;) {
    const Index end = step_over(at);
    KEEL_CHECK(end > at && end <= capacity_, "length of the block or run at frame", at, end);
    for (Index inside = at + 1; inside < end; ++inside) {
      KEEL_CHECK(frames_[inside].word().use == FrameUse::kBody, "frame inside a block or run",
                 inside, at);
    }
    const FrameWord word = frames_[at].word();
    if (word.use == FrameUse::kFree) {
      audit_block(at);
      ++census.blocks[word.kind];
      census.free += end - at;
    }
    census.present += word.use != FrameUse::kAbsent ? end - at : 0;
    at = end;
  }
  KEEL_CHECK(census.free == free_, "free frames", census.free, free_);
  KEEL_CHECK(census.present == present_, "present frames", census.present, present_);
  audit_lists(census);
}

void PageAllocator::audit_block(Index first) const {
  const unsigned order = frames_[first].word().kind;
  KEEL_CHECK(order <= kMaxOrder && first % (Index{1} << order) == 0, "alignment of the block at",
             first, order);
  if (order < kMaxOrder) {
    const FrameWord buddy = frames_[first ^ (Index{1} << order)].word();
    KEEL_CHECK(buddy.use != FrameUse::kFree || buddy.kind != order, "two free buddies, frame",
               first, order);
  }
}

void PageAllocator::audit_lists(const FreeCensus& census) const {
  for (unsigned order = 0; order <= kMaxOrder; ++order) {
    std::uint64_t found = 0;
    Index prev = kNone;
    for (Index at = heads_[order]; at != kNone; at = frames_[at].next) {
      const FrameWord word = frames_[at].word();
      KEEL_CHECK(word.use == FrameUse::kFree && word.kind == order,
                 "wrong block in the list of order", order, at);
      KEEL_CHECK(frames_[at].prev == prev, "link back in the list of order", order, at);
      prev = at;
      ++found;
    }
    KEEL_CHECK(found == census.blocks[order] && found == blocks_[order], "blocks of order", order,
               found, blocks_[order]);
    KEEL_CHECK(((orders_ >> order) & 1U) == (found != 0 ? 1U : 0U), "bit of order", order);
  }
}

}  // namespace keel
