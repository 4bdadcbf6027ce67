#include "address_space.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/base/percpu.h"
#include "keel/base/units.h"

namespace keel {
namespace {

// A shard is at least 4 MiB: smaller ones would only break up the space.
constexpr std::uint32_t kMinShardPages = 1024;

// Blocks are a sixteenth of a shard, within their bounds.
constexpr std::uint32_t kBlocksPerShard = 16;

unsigned choose_shards(std::uint32_t pages, unsigned wanted) {
  const std::uint32_t fitting = std::max(1U, std::bit_floor(pages / kMinShardPages));
  const std::uint32_t by_cpus = std::bit_ceil(possible_cpus());
  const std::uint32_t shards = wanted != 0 ? wanted : std::min(by_cpus, fitting);
  const std::uint32_t most = std::max(1U, pages / kMinBlockPages);
  return std::min({shards, most, std::uint32_t{AddressSpace::kMaxShards}});
}

std::uint32_t choose_block_pages(std::uint32_t shard_pages) {
  return std::clamp(std::bit_floor(shard_pages / kBlocksPerShard), kMinBlockPages, kMaxBlockPages);
}

LockRank rank_of(unsigned shard) {
  return static_cast<LockRank>(static_cast<unsigned>(LockRank::kWindow) + shard);
}

}  // namespace

AddressSpace::~AddressSpace() {
  if (entries_ != nullptr) {
    (void)os().munmap(entries_, table_bytes_);  // Cannot be helped if it fails.
  }
}

Status AddressSpace::open(std::uint32_t pages, unsigned shards) {
  KEEL_CHECK(pages != 0 && pages <= kMaxWindowPages, "pages of a window", pages);
  pages_ = pages;
  const unsigned count = choose_shards(pages, shards);
  const std::uint32_t block_pages = choose_block_pages(pages / count);
  // Shards begin where blocks may, so that none is lost between two.
  shard_pages_ =
      static_cast<std::uint32_t>(count == 1 ? pages : round_down(pages / count, block_pages));
  for (; count_ < count; ++count_) {
    shards_[count_].reset(new (std::nothrow) Shard(rank_of(count_)));
    if (shards_[count_] == nullptr) {
      return Error{Errc::kNoMemory, 0, "shards of a window"};
    }
  }
  return reserve_tables(block_pages);
}

// One mapping without memory behind it holds the entries and then the blocks of all shards.
Status AddressSpace::reserve_tables(std::uint32_t block_pages) {
  const std::size_t entries_bytes = std::size_t{pages_} * sizeof(RangeEntry);
  const std::size_t blocks = pages_ / block_pages;
  table_bytes_ = entries_bytes + blocks * sizeof(VmapBlock);
  void* mapped = nullptr;
  const int error = os().mmap(nullptr, table_bytes_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the window's tables, bytes", table_bytes_);
  }
  entries_ = static_cast<RangeEntry*>(mapped);
  auto* block = reinterpret_cast<VmapBlock*>(static_cast<std::byte*>(mapped) + entries_bytes);
  for (unsigned i = 0; i < count_; ++i) {
    const PageIndex first = i * shard_pages_;
    const std::uint32_t pages = end_of(i) - first;
    Shard& shard = *shards_[i];
    MutexLock guard(shard.lock);
    shard.table.open(entries_, first, pages, block, block_pages, totals_);
    block += VmapBlocks::count_for(pages, block_pages);
  }
  return {};
}

// Finding room ------------------------------------------------------------------------------------

// Small areas without guard page are slots of blocks while there are blocks to be had. Each way is
// tried in every shard, from the home shard on, before the next.
std::optional<PageIndex> AddressSpace::begin(const AreaRequest& request, bool everywhere) {
  for (const bool slot : {true, false}) {
    if (slot && (request.guard || request.pages > kMaxSlotPages)) {
      continue;
    }
    for (const Effort effort : {Effort::kQuick, Effort::kThorough}) {
      if (const auto area = begin_in_one(request, slot, effort)) {
        return area;
      }
    }
  }
  return everywhere ? begin_everywhere(request) : std::nullopt;
}

std::optional<PageIndex> AddressSpace::begin_in_one(const AreaRequest& request, bool slot,
                                                    Effort effort) {
  const unsigned home = current_cpu();
  for (unsigned i = 0; i < count_; ++i) {
    Shard& shard = *shards_[(home + i) % count_];
    MutexLock guard(shard.lock);
    RangeTable& table = shard.table;
    const auto area = slot ? table.begin_slot(request, effort) : table.begin_area(request, effort);
    if (area) {
      return area;
    }
  }
  return std::nullopt;
}

std::optional<PageIndex> AddressSpace::begin_over_lazy(const AreaRequest& request) {
  const unsigned home = current_cpu();
  for (unsigned i = 0; i < count_; ++i) {
    Shard& shard = *shards_[(home + i) % count_];
    MutexLock guard(shard.lock);
    if (const auto area = shard.table.begin_over_lazy(request)) {
      return area;
    }
  }
  return std::nullopt;
}

std::optional<PageIndex> AddressSpace::begin_everywhere(const AreaRequest& request) {
  const AllLocks all(*this);
  std::optional<PageIndex> area;
  for (unsigned i = 0; i < count_ && !area; ++i) {
    RangeTable& table = shards_[i]->with_all_locks();
    table.yield_reserves();
    table.dissolve_blocks();
    area = table.begin_area(request, Effort::kThorough);
  }
  return area ? area : begin_spanning(request);
}

// True if an area of `pages` fits from the free end of a shard into those after it.
bool AddressSpace::spans_from(unsigned index, std::uint32_t pages) const {
  std::uint32_t here = shards_[index]->with_all_locks().free_at_end();
  if (here == 0) {
    return false;
  }
  while (pages > here) {
    pages -= here;
    if (++index == count_) {
      return false;
    }
    const RangeTable& table = shards_[index]->with_all_locks();
    here = table.free_at_begin();
    if (here < pages && here != table.pages()) {
      return false;
    }
  }
  return true;
}

std::optional<PageIndex> AddressSpace::begin_spanning(const AreaRequest& request) {
  unsigned index = 0;
  while (index < count_ && !spans_from(index, request.pages)) {
    ++index;
  }
  if (index == count_) {
    return std::nullopt;
  }
  RangeTable& head = shards_[index]->with_all_locks();
  const std::uint32_t here = head.free_at_end();
  const PageIndex area = head.begin_spanning(request, here);
  for (std::uint32_t left = request.pages - here; left != 0;) {
    RangeTable& table = shards_[++index]->with_all_locks();
    const std::uint32_t pages = std::min(left, table.pages());
    left -= pages;
    table.cover(area, pages, request.guard && left == 0);
  }
  return area;
}

void AddressSpace::free_spanning(PageIndex area) {
  const AllLocks all(*this);
  const RangeEntry& head = entries_[area];
  const PageIndex end = area + head.pages();
  const bool guard = head.guard();
  unsigned index = area / shard_pages_;
  index = index < count_ ? index : count_ - 1;
  for (unsigned i = count_ - 1; i > index; --i) {
    RangeTable& table = shards_[i]->with_all_locks();
    if (table.first() < end) {
      table.uncover(guard && table.end() >= end);
    }
  }
  shards_[index]->with_all_locks().finish_spanning(area);
}

// All together ------------------------------------------------------------------------------------

AddressSpace::AllLocks::AllLocks(const AddressSpace& space) KEEL_NO_THREAD_SAFETY_ANALYSIS
    : space_(space) {
  for (unsigned i = 0; i < space_.count_; ++i) {
    space_.shards_[i]->lock.lock();
  }
}

AddressSpace::AllLocks::~AllLocks() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  for (unsigned i = space_.count_; i != 0; --i) {
    space_.shards_[i - 1]->lock.unlock();
  }
}

unsigned AddressSpace::gaps_counted_twice() const {
  unsigned twice = 0;
  for (unsigned i = 1; i < count_; ++i) {
    twice += shards_[i - 1]->with_all_locks().ends_with_gap() &&
                     shards_[i]->with_all_locks().begins_with_gap()
                 ? 1U
                 : 0U;
  }
  return twice;
}

void AddressSpace::audit() const {
  const AllLocks all(*this);
  std::uint64_t mappings = 0;
  std::uint64_t lazy_pages = 0;
  for (unsigned i = 0; i < count_; ++i) {
    const RangeTable& table = shards_[i]->with_all_locks();
    table.audit();
    mappings += table.mappings();
    lazy_pages += table.lazy_pages();
  }
  // Who is between charging the total and taking an area may have added to it, never taken away.
  KEEL_CHECK(mappings <= totals_.mappings.load(std::memory_order_relaxed), "mappings of all shards",
             mappings, totals_.mappings.load(std::memory_order_relaxed));
  KEEL_CHECK(lazy_pages == totals_.lazy_pages.load(std::memory_order_relaxed), "lazy pages",
             lazy_pages, totals_.lazy_pages.load(std::memory_order_relaxed));
}

}  // namespace keel
