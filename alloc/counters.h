// Counts of a pool's paths, one set for each CPU: a count that all CPUs share costs each of them
// the line it stands on.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "keel/base/percpu.h"

namespace keel {

enum class PoolCount : std::uint8_t {
  kContiguous,  // buffers that the page allocator made
  kVmalloc,     // buffers that were gathered and mapped
  kFailures,
  kRefusals,  // of them, at once, since nothing had been freed since a full pass
  kNofailWarnings,
  kSlowFrees,      // that went past the cache
  kInlineGrowths,  // chunks that callers had to populate themselves
  kKeeperGrowths,  // chunks that the pool's thread populated ahead of them
  kTrimmedChunks,
  kReclaims,   // passes over caches, aliases and shrinkers by callers
  kRefills,    // takes from the cache that the depot served
  kMisses,     // that nothing in the cache could serve
  kOverflows,  // puts that a CPU's stack had no room for
  kEvictions,  // buffers that left the cache for the free lists
  kMovedIn,    // pushes onto CPU stacks that were no caller's
  kMovedOut,   // pops, likewise
  kStored,     // puts that went past the stack
  kExcessIn,   // pages that buffers in the depot have beyond those of their class
  kExcessOut,
  kDeferredIn,   // pages of buffers that wait to go back together
  kDeferredOut,  // of those that went
  kCount_,
};

// Relaxed everywhere: nobody concludes from a count to other memory.
class PoolCounters {
 public:
  // False if there was no memory for it; then nothing may be called.
  [[nodiscard]] bool ok() const { return sets_.ok(); }
  void add(PoolCount count, std::uint64_t by = 1) {
    sets_.local()[static_cast<std::size_t>(count)].fetch_add(by, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t get(PoolCount count) const {
    std::uint64_t sum = 0;
    for (unsigned cpu = 0; cpu < PerCpu<Set>::size(); ++cpu) {
      sum += sets_.of(cpu)[static_cast<std::size_t>(count)].load(std::memory_order_relaxed);
    }
    return sum;
  }

 private:
  using Set = std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(PoolCount::kCount_)>;
  PerCpu<Set> sets_;
};

// Times by powers of two: bucket i counts those below 2^i ns and not below half of it.
class Histogram {
 public:
  static constexpr unsigned kBuckets = 40;
  void add(std::uint64_t ns) {
    const auto width = static_cast<unsigned>(std::bit_width(ns));
    // Relaxed, as all counts.
    buckets_[width < kBuckets ? width : kBuckets - 1].fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t bucket(unsigned i) const {
    return buckets_[i].load(std::memory_order_relaxed);  // Same.
  }

 private:
  std::array<std::atomic<std::uint64_t>, kBuckets> buckets_{};
};

}  // namespace keel
