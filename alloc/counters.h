// Counts of a pool's slower paths; what the CPU caches serve is counted there.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace keel {

// Relaxed everywhere: nobody concludes from a count to other memory.
class Counter {
 public:
  void add(std::uint64_t by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Times by powers of two: bucket i counts those below 2^i ns and not below half of it.
class Histogram {
 public:
  static constexpr unsigned kBuckets = 40;
  void add(std::uint64_t ns) {
    const auto width = static_cast<unsigned>(std::bit_width(ns));
    buckets_[width < kBuckets ? width : kBuckets - 1].add();
  }
  [[nodiscard]] std::uint64_t bucket(unsigned i) const { return buckets_[i].get(); }

 private:
  std::array<Counter, kBuckets> buckets_;
};

struct PoolCounters {
  Counter contiguous;    // buffers that the page allocator made
  Counter vmalloc;       // buffers that were gathered and mapped
  Counter vmalloc_runs;  // runs that these were made of
  Counter failures;
  Counter refusals;  // of them, at once, since nothing had been freed since a full pass
  Counter nofail_warnings;
  Counter slow_frees;      // that went past the cache
  Counter inline_growths;  // chunks that callers had to populate themselves
  Counter keeper_growths;  // chunks that the pool's thread populated ahead of them
  Counter trimmed_chunks;
  Counter reclaims;   // passes over caches, aliases and shrinkers by callers
  Histogram slow_ns;  // of allocations that no cache served
};

}  // namespace keel
