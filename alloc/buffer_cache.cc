#include "buffer_cache.h"

#include <algorithm>

namespace keel {
namespace {

// Room that a class may have on one CPU.
constexpr std::uint32_t kMostPagesPerStack = 128;

unsigned most_per_cpu(unsigned size_class) {
  const std::uint32_t pages = pages_of_class(size_class);
  return pages > kMaxExactPages ? 0 : std::min(kMostPagesPerStack / pages, CpuStacks::kDepth);
}

}  // namespace

Status BufferCache::open(CpuStacks::Engine engine) {
  if (!cpus_.ok() || !counters_.ok()) {
    return Error{Errc::kNoMemory, 0, "CPU caches"};
  }
  return stacks_.open(engine);
}

// Budgets -----------------------------------------------------------------------------------------

void BufferCache::set_budget(Pages populated, bool full) {
  // Below these shares of what is populated an idle buffer costs less than it saves; small pools
  // may keep a few MiB all the same.
  constexpr std::uint64_t kMiB = 256;  // in pages
  const std::uint64_t pages = populated.value();
  const std::uint64_t cpus = std::min(std::max(pages / 48, 6 * kMiB), cpus_.size() * 3 * kMiB);
  const std::uint64_t depot = std::max(full ? pages / 16 : pages / 96, 4 * kMiB);
  cpu_budget_.store(pages == 0 ? 0 : cpus / cpus_.size(), std::memory_order_relaxed);
  depot_budget_.store(pages == 0 ? 0 : depot, std::memory_order_relaxed);
}

// Raises the limit of the class on this CPU to `wanted`, by half of what it has and two at a time,
// if the budget allows.
void BufferCache::grant(unsigned id, unsigned size_class, unsigned wanted) {
  unsigned limit = stacks_.limit(id, size_class);
  if (limit >= wanted) {
    return;
  }
  Cpu& cpu = cpus_.of(id);
  const Pages each{pages_of_class(size_class)};
  const std::uint64_t budget = cpu_budget_.load(std::memory_order_relaxed);
  MutexLock lock(cpu.lock);
  limit = stacks_.limit(id, size_class);
  wanted = std::min(wanted, limit + limit / 2 + 2);
  while (limit < wanted) {
    if (cpu.granted.value() + each.value() <= budget) {
      cpu.granted += each;
      ++limit;
    } else if (!reclaim_grant(cpu, id, size_class)) {
      break;
    }
  }
  stacks_.set_limit(id, size_class, limit);
}

// Takes room that another class leaves unused; false if there is none.
bool BufferCache::reclaim_grant(Cpu& cpu, unsigned id, unsigned wanted_by) {
  // A few only: the next call goes on where this one stops.
  for (unsigned tried = 0; tried < 8; ++tried) {
    const unsigned other = cpu.hand;
    cpu.hand = (cpu.hand + 1) % kSizeClasses;
    const unsigned limit = stacks_.limit(id, other);
    if (other != wanted_by && limit > stacks_.count(id, other)) {
      stacks_.set_limit(id, other, limit - 1);
      cpu.granted -= Pages(pages_of_class(other));
      return true;
    }
  }
  return false;
}

// Exchange ----------------------------------------------------------------------------------------

std::uint32_t BufferCache::refill(Pages wanted_pages) {
  if (wanted_pages.value() > kMaxExactPages) {
    return take_large(wanted_pages);
  }
  const unsigned size_class = size_class_of(static_cast<std::uint32_t>(wanted_pages.value()));
  const unsigned id = current_cpu();
  std::atomic<bool>& wanted_here = cpus_.of(id).wanted[size_class];
  if (!wanted_here.load(std::memory_order_relaxed)) {  // A hint; written only if it changes.
    wanted_here.store(true, std::memory_order_relaxed);
  }
  grant(id, size_class, most_per_cpu(size_class));
  const unsigned limit = stacks_.limit(id, size_class);
  std::array<Pfn, kBatch> batch;
  const unsigned wanted = std::clamp(limit / 2, 1U, kBatch);
  unsigned got = depot_.take(size_class, std::span(batch).first(wanted));
  if (got == 0) {
    counters_.add(PoolCount::kMisses);
    return CpuStacks::kNone;
  }
  counters_.add(PoolCount::kRefills);
  const Pfn mine = batch[0];  // The one that was returned last.
  unsigned left = got;
  while (left > 1 &&
         stacks_.push(size_class, static_cast<std::uint32_t>(batch[left - 1].value()))) {
    --left;
  }
  counters_.add(PoolCount::kMovedIn, got - left);
  if (left > 1) {
    store(size_class, std::span(batch).subspan(1, left - 1));
  }
  if (got > 1) {
    evictor_.note_returned();
  }
  return static_cast<std::uint32_t>(mine.value());
}

// From the request's own class any buffer; from the class below, where those lie that have as many
// pages as were once asked for, one that is large enough.
std::uint32_t BufferCache::take_large(Pages wanted) {
  const unsigned size_class = size_class_of(static_cast<std::uint32_t>(wanted.value()));
  std::uint32_t frame = take_fitting(size_class, wanted);
  if (frame == CpuStacks::kNone && kept_class_of(wanted.value()) == size_class - 1) {
    frame = take_fitting(size_class - 1, wanted);
  }
  counters_.add(frame == CpuStacks::kNone ? PoolCount::kMisses : PoolCount::kRefills);
  return frame;
}

// Looks at the last few returned.
std::uint32_t BufferCache::take_fitting(unsigned size_class, Pages wanted) {
  if (depot_.pages_of(size_class) == Pages(0)) {
    return CpuStacks::kNone;
  }
  std::array<Pfn, 4> batch;
  const unsigned got = depot_.take(size_class, batch);
  count_excess(PoolCount::kExcessOut, size_class, std::span(batch).first(got));
  const auto end = batch.begin() + got;
  const auto found = std::find_if(batch.begin(), end,
                                  [&](Pfn buffer) { return evictor_.pages_of(buffer) >= wanted; });
  if (found == end) {
    std::reverse(batch.begin(), end);
    store(size_class, std::span(batch).first(got));
    evictor_.note_returned();
    return CpuStacks::kNone;
  }
  const Pfn mine = *found;
  std::copy(found + 1, end, found);
  std::reverse(batch.begin(), end - 1);
  store(size_class, std::span(batch).first(got - 1));
  if (got > 1) {
    evictor_.note_returned();
  }
  return static_cast<std::uint32_t>(mine.value());
}

void BufferCache::count_excess(PoolCount count, unsigned size_class, std::span<const Pfn> buffers) {
  if (pages_of_class(size_class) <= kMaxExactPages) {
    return;
  }
  for (const Pfn buffer : buffers) {
    counters_.add(count, evictor_.pages_of(buffer).value() - pages_of_class(size_class));
  }
}

// A CPU that only frees gets room for a batch, and passes all of it on: what lay there would be of
// use to nobody. Where buffers are taken as well, half of the stack stays.
void BufferCache::overflow(unsigned size_class, std::uint32_t frame) {
  counters_.add(PoolCount::kOverflows);
  const unsigned id = current_cpu();
  const bool used_here =
      cpus_.of(id).wanted[size_class].load(std::memory_order_relaxed);  // A hint.
  const unsigned most = most_per_cpu(size_class);
  grant(id, size_class, used_here ? most : std::min(most, kBatch / 2));
  if (stacks_.push(size_class, frame)) {
    return;
  }
  const unsigned limit = stacks_.limit(id, size_class);
  const unsigned take = std::min(used_here ? limit / 2 : limit, kBatch - 1);
  std::array<Pfn, kBatch> batch;
  unsigned count = 0;
  while (count < take) {
    const std::uint32_t item = stacks_.pop(size_class);
    if (item == CpuStacks::kNone) {
      break;
    }
    batch[count++] = Pfn(item);
  }
  counters_.add(PoolCount::kMovedOut, count);
  counters_.add(PoolCount::kStored);
  std::reverse(batch.begin(), batch.begin() + count);
  batch[count++] = Pfn(frame);
  store(size_class, std::span(batch).first(count));
  trim_depot();
}

bool BufferCache::defer(std::uint32_t frame, Pages held) {
  if (held.value() > cpu_budget_.load(std::memory_order_relaxed) / kOutboxDepth) {  // A number.
    return false;
  }
  counters_.add(PoolCount::kDeferredIn, held.value());
  const unsigned id = current_cpu();
  if (stacks_.limit(id, kOutbox) == 0) {
    stacks_.set_limit(id, kOutbox, kOutboxDepth);
  }
  if (stacks_.push(kOutbox, frame)) {
    return true;
  }
  std::array<Pfn, kOutboxDepth + 1> batch;
  unsigned count = 0;
  batch[count++] = Pfn(frame);
  for (std::uint32_t item;
       count < batch.size() && (item = stacks_.pop(kOutbox)) != CpuStacks::kNone;) {
    batch[count++] = Pfn(item);
  }
  counters_.add(PoolCount::kStored);
  evict_deferred(std::span(batch).first(count));
  return true;
}

Pages BufferCache::evict_deferred(std::span<const Pfn> buffers) {
  Pages held{};
  for (const Pfn buffer : buffers) {
    held += evictor_.pages_of(buffer);
  }
  evict(buffers);
  counters_.add(PoolCount::kDeferredOut, held.value());
  return held;
}

// Puts buffers into the depot, or gives away what does not fit.
void BufferCache::store(unsigned size_class, std::span<const Pfn> buffers) {
  while (!buffers.empty()) {
    const Tier tier = evictor_.tier_of(buffers[0]);
    std::size_t same = 1;
    while (same < buffers.size() && evictor_.tier_of(buffers[same]) == tier) {
      ++same;
    }
    // Counted before others can take them out, and counted back what did not fit.
    count_excess(PoolCount::kExcessIn, size_class, buffers.first(same));
    const unsigned fit = depot_.put(size_class, tier, buffers.first(same));
    count_excess(PoolCount::kExcessOut, size_class, buffers.subspan(fit, same - fit));
    evict(buffers.subspan(fit, same - fit));
    buffers = buffers.subspan(same);
  }
}

// Gives the oldest of whichever class holds most away until the depot is within its budget: a stock
// of small buffers is worth as much as one of large ones, and costs little.
void BufferCache::trim_depot() {
  const std::uint64_t budget = depot_budget_.load(std::memory_order_relaxed);
  for (unsigned tried = 0; tried < kSizeClasses && depot_.pages().value() > budget; ++tried) {
    const unsigned victim = depot_.largest();
    const std::uint64_t excess = depot_.pages().value() - budget;
    const std::uint64_t wanted = excess / pages_of_class(victim) + 1;
    std::array<Pfn, kBatch> batch;
    const auto most = static_cast<std::size_t>(std::min<std::uint64_t>(wanted, kBatch));
    const unsigned got = depot_.take_oldest(victim, std::span(batch).first(most));
    count_excess(PoolCount::kExcessOut, victim, std::span(batch).first(got));
    evict(std::span(batch).first(got));
  }
}

void BufferCache::evict(std::span<const Pfn> buffers) {
  if (!buffers.empty()) {
    counters_.add(PoolCount::kEvictions, buffers.size());
    evictor_.evict(buffers);
  }
}

// Drains ------------------------------------------------------------------------------------------

Pages BufferCache::drain_cpu(unsigned id, bool idle_only) {
  Pages given{};
  Cpu& cpu = cpus_.of(id);
  for (unsigned c = 0; c < CpuStacks::kStacks; ++c) {
    if (stacks_.count(id, c) == 0 && stacks_.limit(id, c) == 0) {
      continue;
    }
    {
      MutexLock lock(cpu.lock);
      const std::uint64_t uses = stacks_.uses(id, c);
      const bool idle = cpu.seen[c] == uses;
      cpu.seen[c] = uses;
      if (idle_only && !idle) {
        continue;
      }
      if (c != kOutbox) {
        cpu.wanted[c].store(false, std::memory_order_relaxed);  // A hint.
        cpu.granted -= Pages(std::uint64_t{stacks_.limit(id, c)} * pages_of_class(c));
      }
      stacks_.set_limit(id, c, 0);
    }
    std::array<Pfn, CpuStacks::kDepth> batch;
    unsigned count = 0;
    {
      CpuStacks::Stopped stopped(stacks_, id);
      for (std::uint32_t item;
           count < batch.size() && (item = stopped.take_oldest(c)) != CpuStacks::kNone;) {
        batch[count++] = Pfn(item);
      }
    }
    if (c == kOutbox) {
      given += evict_deferred(std::span(batch).first(count));
    } else {
      evict(std::span(batch).first(count));
      given += Pages(std::uint64_t{count} * pages_of_class(c));
    }
  }
  return given;
}

Pages BufferCache::drain_depot_class(unsigned size_class) {
  Pages given{};
  for (;;) {
    std::array<Pfn, kBatch> batch;
    const unsigned got = depot_.take_oldest(size_class, batch);
    if (got == 0) {
      return given;
    }
    count_excess(PoolCount::kExcessOut, size_class, std::span(batch).first(got));
    evict(std::span(batch).first(got));
    given += Pages(std::uint64_t{got} * pages_of_class(size_class));
  }
}

Pages BufferCache::drain() {
  MutexLock lock(drain_lock_);
  Pages given{};
  for (unsigned id = 0; id < stacks_.cpus(); ++id) {
    given += drain_cpu(id, false);
  }
  for (unsigned c = 0; c < kSizeClasses; ++c) {
    given += drain_depot_class(c);
  }
  return given;
}

Pages BufferCache::drain_idle() {
  MutexLock lock(drain_lock_);
  Pages given{};
  for (unsigned id = 0; id < stacks_.cpus(); ++id) {
    given += drain_cpu(id, true);
  }
  for (unsigned c = 0; c < kSizeClasses; ++c) {
    given += depot_.was_idle(c) ? drain_depot_class(c) : Pages(0);
  }
  return given;
}

Pages BufferCache::shrink(Pages wanted) {
  MutexLock lock(drain_lock_);
  Pages given{};
  for (unsigned c = kSizeClasses; c-- > 0 && given < wanted;) {
    given += drain_depot_class(c);
  }
  for (unsigned id = 0; id < stacks_.cpus() && given < wanted; ++id) {
    given += drain_cpu(id, false);
  }
  return given;
}

// Reports -----------------------------------------------------------------------------------------

Pages BufferCache::idle_pages() const { return stats().in_cpus + depot_.pages(); }

CacheStats BufferCache::stats() const {
  CacheStats stats;
  for (unsigned id = 0; id < stacks_.cpus(); ++id) {
    for (unsigned c = 0; c < kSizeClasses; ++c) {
      stats.in_cpus += Pages(std::uint64_t{stacks_.count(id, c)} * pages_of_class(c));
    }
  }
  const std::uint64_t gone = counters_.get(PoolCount::kDeferredOut);  // First: never above in.
  stats.in_cpus += Pages(counters_.get(PoolCount::kDeferredIn) - gone);
  stats.puts += stacks_.pushes(kOutbox);
  const std::uint64_t excess_gone = counters_.get(PoolCount::kExcessOut);  // First, as above.
  const std::uint64_t excess = counters_.get(PoolCount::kExcessIn) - excess_gone;
  stats.in_depot = depot_.pages() + Pages(excess);
  stats.refills = counters_.get(PoolCount::kRefills);
  stats.misses = counters_.get(PoolCount::kMisses);
  stats.overflows = counters_.get(PoolCount::kOverflows);
  for (unsigned c = 0; c < kSizeClasses; ++c) {
    stats.hits += stacks_.pops(c);
    stats.puts += stacks_.pushes(c);
  }
  stats.hits -= std::min(stats.hits, counters_.get(PoolCount::kMovedOut));
  stats.puts -= std::min(stats.puts, counters_.get(PoolCount::kMovedIn));
  stats.puts += counters_.get(PoolCount::kStored);
  stats.evictions = counters_.get(PoolCount::kEvictions);
  return stats;
}

}  // namespace keel
