#include "keel/alloc/page_allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "keel/base/check.h"

namespace keel {
namespace {

constexpr std::uint32_t kMaxBlock = std::uint32_t{1} << kMaxOrder;

// Uses of the first frame of a run in somebody's hands.
constexpr bool is_run(FrameUse use) { return use >= FrameUse::kBuffer; }

constexpr std::uint32_t kBlockPages = 256;

unsigned floor_order(std::uint32_t pages) {
  return static_cast<unsigned>(std::bit_width(pages)) - 1;
}

}  // namespace

PageAllocator::PageAllocator(Pages capacity) : capacity_(static_cast<Index>(capacity.value())) {}

Result<std::unique_ptr<PageAllocator>> PageAllocator::create(Pages capacity) {
  if (capacity.value() == 0 || capacity.value() >= std::uint64_t{1} << 31) {  // FreeBins
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

// One more, so that the frame behind the last has a record (kAbsent, which is zero).
std::size_t PageAllocator::frames_bytes() const {
  return (std::size_t{capacity_} + 1) * sizeof(Frame);
}

std::size_t PageAllocator::counts_bytes() const {
  return (capacity_ / kBlockPages + 1) * sizeof(*free_in_block_);
}

Status PageAllocator::open() {
  void* mapped = nullptr;
  const int error = os().mmap(nullptr, frames_bytes(), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of frame records, bytes", frames_bytes());
  }
  frames_ = static_cast<Frame*>(mapped);
  free_in_block_ = static_cast<std::uint16_t*>(os().metadata_allocate(counts_bytes()));
  if (free_in_block_ == nullptr) {
    return Error{Errc::kNoMemory, 0, "counts of free frames, bytes", counts_bytes()};
  }
  std::memset(free_in_block_, 0, counts_bytes());
  return {};
}

PageAllocator::~PageAllocator() {
  os().metadata_free(free_in_block_);
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

// Free runs ---------------------------------------------------------------------------------------

// The words of both ends keep what they say of the last buffer that began there.
void PageAllocator::insert_free(Index first, Index length) {
  if (length > 1) {
    Frame& tail = frames_[first + length - 1];
    tail.set_use(FrameUse::kFreeTail);
    tail.area = length;
  }
  Frame& head = frames_[first];
  head.set_use(FrameUse::kFree);
  head.area = length;
  const FreeBins::Bin bin = FreeBins::bin_of(length);
  head.prev = kNone;
  head.next = bins_.head(bin);
  if (head.next != kNone) {
    frames_[head.next].prev = first;
  }
  bins_.set_head(bin, first);
  blocks_.add(first, length);
}

void PageAllocator::remove_free(Index first) {
  Frame& head = frames_[first];
  KEEL_ASSERT(head.word().use == FrameUse::kFree, "not a free run, frame", first);
  const Index length = head.area;
  blocks_.remove(first, length);
  if (head.prev != kNone) {
    frames_[head.prev].next = head.next;
  } else {
    bins_.set_head(FreeBins::bin_of(length), head.next);
  }
  if (head.next != kNone) {
    frames_[head.next].prev = head.prev;
  }
  frames_[first + length - 1].set_use(FrameUse::kBody);
  head.set_use(FrameUse::kBody);
}

// `sign` is 1 or -1.
void PageAllocator::count_free(Index first, Index count, int sign) {
  for (Index at = first; at < first + count;) {
    const Index end = std::min((at / kBlockPages + 1) * kBlockPages, first + count);
    std::uint16_t& of = free_in_block_[at / kBlockPages];
    of = static_cast<std::uint16_t>(of + sign * static_cast<int>(end - at));
    at = end;
  }
  free_ += static_cast<std::uint64_t>(static_cast<std::int64_t>(sign) * count);
}

// Joins the frames with free neighbours.
void PageAllocator::free_range(Index first, Index count) {
  count_free(first, count, 1);
  if (first != 0) {
    const Frame& before = frames_[first - 1];
    const FrameUse use = before.word().use;
    if (use == FrameUse::kFreeTail || (use == FrameUse::kFree && before.area == 1)) {
      const Index length = before.area;
      remove_free(first - length);
      first -= length;
      count += length;
    }
  }
  const Frame& after = frames_[first + count];
  if (after.word().use == FrameUse::kFree) {
    const Index length = after.area;
    remove_free(first + count);
    count += length;
  }
  insert_free(first, count);
}

// First frame of the free run that `frame`, which is free, lies in. Whole free blocks are stepped
// over.
PageAllocator::Index PageAllocator::free_run_over(Index frame) const {
  Index at = frame;
  while (frames_[at].word().use != FrameUse::kFree) {
    const bool whole =
        at % kBlockPages == 0 && at != 0 && free_in_block_[at / kBlockPages - 1] == kBlockPages;
    at -= whole ? kBlockPages : 1;
  }
  return at;
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

// First frame of the free run that all of [first, end) lies in; kNone if not all of it is free.
PageAllocator::Index PageAllocator::free_run_around(Index first, Index end) const {
  for (Index at = first; at < end;) {
    const Index block_end = std::min((at / kBlockPages + 1) * kBlockPages, end);
    if (free_in_block_[at / kBlockPages] < block_end - at) {
      return kNone;
    }
    at = block_end;
  }
  // A chunk smaller than a block of counts may still have frames in use.
  // The highest one that is free ends its run, whose length stands there: no walk over all of it.
  const bool ends_run = frames_[end - 1].word().use == FrameUse::kFreeTail;
  const Index head = head_of(ends_run ? end - 1 : first);
  if (head == kNone || head > first || frames_[head].word().use != FrameUse::kFree ||
      head + frames_[head].area < end) {
    return kNone;
  }
  return head;
}

std::optional<FrameRun> PageAllocator::find_free_chunk(Pfn below, Pages chunk) const {
  constexpr unsigned kLooksPerHold = 64;
  const auto count = static_cast<Index>(chunk.value());
  for (auto end = static_cast<Index>(below.value()); end >= count;) {
    MutexLock lock(lock_);
    for (unsigned looks = 0; looks < kLooksPerHold && end >= count; ++looks, end -= count) {
      if (free_run_around(end - count, end) != kNone) {
        return FrameRun{Pfn(end - count), chunk};
      }
    }
  }
  return std::nullopt;
}

bool PageAllocator::remove(FrameRun chunk) {
  const auto first = static_cast<Index>(chunk.first.value());
  const auto end = static_cast<Index>(chunk.end().value());
  MutexLock lock(lock_);
  const Index head = free_run_around(first, end);
  if (head == kNone) {
    return false;
  }
  const Index run_end = head + frames_[head].area;
  remove_free(head);
  if (head != first) {
    insert_free(head, first - head);
  }
  if (run_end != end) {
    insert_free(end, run_end - end);
  }
  count_free(first, end - first, -1);
  for (Index i = first; i < end; ++i) {
    frames_[i].set({});
  }
  present_ -= end - first;
  publish_hints();
  return true;
}

// Allocate ----------------------------------------------------------------------------------------

// The first `pages` frames of a free run; the rest stays free.
PageAllocator::Index PageAllocator::take(Index run, Index pages, FrameUse use, const char* owner) {
  const Index length = frames_[run].area;
  remove_free(run);
  if (length != pages) {
    insert_free(run + pages, length - pages);
  }
  count_free(run, pages, -1);
  Frame& head = frames_[run];
  head.set({.use = use, .pages = pages});
  head.next = kNone;
  head.set_owner(owner);
  return run;
}

// A run of at least `pages`. First a short look at the bin of that very size, which mixes runs that
// fit with smaller ones: a run hardly larger spares a whole one. Then where every run fits. Before
// giving up, a longer look.
PageAllocator::Index PageAllocator::find_fit(Index pages) const {
  constexpr unsigned kFewSteps = 4;
  constexpr unsigned kMostSteps = 64;
  if (const Index found = walk_bin(pages, kFewSteps); found != kNone) {
    return found;
  }
  const Index found = bins_.find(pages);
  return found != kNone ? found : walk_bin(pages, kMostSteps);
}

PageAllocator::Index PageAllocator::walk_bin(Index pages, unsigned most_steps) const {
  Index run = bins_.head(FreeBins::bin_of(pages));
  for (unsigned step = 0; run != kNone && frames_[run].area < pages; ++step) {
    run = step < most_steps ? frames_[run].next : kNone;
  }
  return run;
}

std::optional<Pfn> PageAllocator::allocate(Pages pages, const char* owner) {
  if (pages.value() == 0 || pages > kMaxContiguous) {
    return std::nullopt;
  }
  const auto count = static_cast<Index>(pages.value());
  MutexLock lock(lock_);
  const Index run = find_fit(count);
  if (run == kNone) {
    return std::nullopt;
  }
  const Index first = take(run, count, FrameUse::kBuffer, owner);
  publish_hints();
  return Pfn(first);
}

std::optional<Pfn> PageAllocator::gather(Pages pages, const char* owner) {
  MutexLock lock(lock_);
  if (pages.value() == 0 || pages.value() > free_) {
    return std::nullopt;
  }
  Index first = kNone;
  Index last = kNone;
  for (auto left = static_cast<Index>(pages.value()); left != 0;) {
    // All of the rest from one run if one has it, else from one of the largest.
    const Index fit = find_fit(left);
    const Index from = fit != kNone ? fit : bins_.find_large();
    KEEL_CHECK(from != kNone, "frames are counted as free that no list has", free_);
    const Index run = take(from, std::min(left, frames_[from].area), FrameUse::kScattered, owner);
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

// First frame of the run that `frame` lies in, free or not; kNone if it is absent. Walks back to
// it, at most over one run, but from the end of a free one.
PageAllocator::Index PageAllocator::head_of(Index frame) const {
  Index at = frame;
  FrameUse use = frames_[at].word().use;
  if (use == FrameUse::kAbsent) {
    return kNone;
  }
  if (use == FrameUse::kFreeTail) {
    return frame + 1 - frames_[frame].area;
  }
  if (free_in_block_[frame / kBlockPages] == kBlockPages) {
    return free_run_over(frame);
  }
  while (use == FrameUse::kBody) {
    KEEL_CHECK(at != 0, "a present frame is in no run", frame);
    use = frames_[--at].word().use;
  }
  return at;
}

// First run of the chain that the run belongs to: its owner is the chain's. For reports: walks all
// chains.
PageAllocator::Index PageAllocator::head_of_chain(Index scattered) const {
  for (Index at = 0; at < capacity_; at = step_over(at)) {
    const FrameUse use = frames_[at].word().use;
    if (use == FrameUse::kChain || use == FrameUse::kCachedChain) {
      for (Index run = at; run != kNone; run = frames_[run].next) {
        if (run == scattered) {
          return at;
        }
      }
    }
  }
  return scattered;
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
  info.owner = frames_[use == FrameUse::kScattered ? head_of_chain(at)
                       : is_free                   ? frame
                                                   : at]
                   .owner_name();
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
  std::array<Pfn, 1> one{first};
  KEEL_CHECK(free_batch(one) == 0, "free of what is no chain's first frame", first.value());
}

std::size_t PageAllocator::free_batch(std::span<Pfn> firsts) {
  std::size_t refused = 0;
  MutexLock lock(lock_);
  for (const Pfn frame : firsts) {
    const auto first = static_cast<Index>(frame.value());
    switch (frames_[first].word().use) {
      case FrameUse::kChain:
      case FrameUse::kCachedChain: free_runs_of_chain(first); break;
      case FrameUse::kBuffer:
      case FrameUse::kSlab:
      case FrameUse::kCached: free_run(first); break;
      default: firsts[refused++] = frame;
    }
  }
  publish_hints();
  return refused;
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

BlockCounts::Orders PageAllocator::buddyinfo() const {
  MutexLock lock(lock_);
  return blocks_.orders();
}

// Frame right behind the block, run or absent frame at `at`, which must begin there.
PageAllocator::Index PageAllocator::step_over(Index at) const {
  const FrameWord head = frames_[at].word();
  if (head.use == FrameUse::kFree) {
    return at + frames_[at].area;
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
  // One place is kept for slabs, whoever comes first: what small objects hold is taken off theirs.
  void take(const char* owner, std::uint64_t pages, bool is_slab) {
    const auto end = sums_.begin() + static_cast<std::ptrdiff_t>(count_);
    auto found =
        std::find_if(sums_.begin(), end, [owner](const Holder& sum) { return sum.owner == owner; });
    // The same text in two libraries is one owner.
    if (found == end) {
      found = std::find_if(sums_.begin(), end, [owner](const Holder& sum) {
        return std::strcmp(sum.owner, owner) == 0;
      });
    }
    if (found == end) {
      if (count_ == kOwners - (is_slab || has_slabs_ ? 0 : 1)) {
        others_ += Pages(pages);
        return;
      }
      *found = {owner, Pages(0)};
      ++count_;
      has_slabs_ = has_slabs_ || is_slab;
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
  bool has_slabs_ = false;
  Pages others_{};
};

}  // namespace

std::size_t PageAllocator::holders(std::span<Holder> largest) const {
  // A lock that is taken again at once lets nobody in who sleeps for it.
  constexpr Index kSlicesToPause = 256;  // a GiB
  constexpr std::uint64_t kPauseNs = 20'000;
  HolderSums sums;
  // In slices, each from the first run that begins in it. One that began earlier ends earlier.
  for (Index slice = 0; slice < capacity_; slice += kMaxBlock) {
    if (slice != 0 && slice % (kSlicesToPause * kMaxBlock) == 0) {
      os().sleep_ns(kPauseNs);
    }
    MutexLock lock(lock_);
    const Index end = std::min(slice + kMaxBlock, capacity_);
    for (Index at = slice; at < end; ++at) {
      const Frame& head = frames_[at];
      const FrameWord word = head.word();
      if (word.use == FrameUse::kBuffer || word.use == FrameUse::kSlab) {
        sums.take(head.owner_name(), word.pages, word.use == FrameUse::kSlab);
      } else if (word.use == FrameUse::kChain) {
        sums.take(head.owner_name(), head.prev, false);
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
  std::uint64_t runs = 0;
  std::uint64_t free = 0;
  std::uint64_t present = 0;
  BlockCounts::Orders blocks{};

  void cut(Index first, Index length);
};

// As the largest blocks that can stand at its first frame, one after the other.
void PageAllocator::FreeCensus::cut(Index first, Index length) {
  for (const Index end = first + length; first != end;) {
    const auto aligned = static_cast<unsigned>(std::countr_zero(first | kMaxBlock));
    const unsigned order = std::min(aligned, floor_order(end - first));
    ++blocks[order];
    first += Index{1} << order;
  }
}

void PageAllocator::audit() const {
  MutexLock lock(lock_);
  FreeCensus census;
  bool after_free = false;
  for (Index at = 0; at < capacity_;) {
    const Index end = step_over(at);
    KEEL_CHECK(end > at && end <= capacity_, "length of the run at frame", at, end);
    const FrameWord word = frames_[at].word();
    const bool is_free = word.use == FrameUse::kFree;
    for (Index inside = at + 1; inside < end; ++inside) {
      const bool tail = is_free && inside + 1 == end;
      KEEL_CHECK(frames_[inside].word().use == (tail ? FrameUse::kFreeTail : FrameUse::kBody),
                 "frame inside a run", inside, at);
    }
    if (is_free) {
      KEEL_CHECK(frames_[end - 1].area == end - at, "length at the end of the free run", at, end);
      KEEL_CHECK(!after_free, "two neighbouring free runs, frame", at);
      ++census.runs;
      census.free += end - at;
      census.cut(at, end - at);
    }
    after_free = is_free;
    census.present += word.use != FrameUse::kAbsent ? end - at : 0;
    at = end;
  }
  KEEL_CHECK(census.free == free_, "free frames", census.free, free_);
  KEEL_CHECK(census.present == present_, "present frames", census.present, present_);
  audit_lists(census);
}

void PageAllocator::audit_lists(const FreeCensus& census) const {
  std::uint64_t found = 0;
  // The analysis does not see that the lambda runs under the lock.
  bins_.for_each_head([&](Index head) KEEL_NO_THREAD_SAFETY_ANALYSIS {
    Index prev = kNone;
    for (Index run = head; run != kNone; run = frames_[run].next) {
      KEEL_CHECK(frames_[run].word().use == FrameUse::kFree, "not a free run in a bin", run);
      KEEL_CHECK(bins_.head(FreeBins::bin_of(frames_[run].area)) == head, "run in the wrong bin",
                 run);
      KEEL_CHECK(frames_[run].prev == prev, "link back in a bin", run);
      prev = run;
      ++found;
    }
  });
  KEEL_CHECK(found == census.runs, "free runs in bins", found, census.runs);
  const BlockCounts::Orders kept = blocks_.orders();
  for (unsigned order = 0; order <= kMaxOrder; ++order) {
    KEEL_CHECK(kept[order] == census.blocks[order], "free blocks of the order, kept and found",
               order, kept[order], census.blocks[order]);
  }
  std::uint64_t counted = 0;
  for (Index block = 0; block <= capacity_ / kBlockPages; ++block) {
    counted += free_in_block_[block];
  }
  KEEL_CHECK(counted == free_, "free frames counted by block", counted, free_);
}

}  // namespace keel
