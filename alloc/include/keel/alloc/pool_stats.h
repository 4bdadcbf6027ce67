// What a pool has done and what it holds, as a plain struct and as text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "keel/base/units.h"

namespace keel {

inline constexpr std::size_t kPoolSizeClasses = 64;

struct SizeClassStats {
  Bytes size{};            // of a buffer of the class
  std::uint64_t hits = 0;  // buffers taken out of CPU caches
  std::uint64_t puts = 0;  // buffers put into them; batches on their way to others count too
  std::uint64_t idle = 0;  // buffers in CPU caches
};

// What one owner holds, in whole pages.
struct OwnerBytes {
  const char* owner = "";
  Bytes held{};
};

struct PoolStats {
  // Allocations by what served them. Those that took an idle buffer:
  std::uint64_t cache_hits = 0;     // of the CPU's cache, without any lock
  std::uint64_t cache_refills = 0;  // of those that CPUs exchange
  // and those that made one:
  std::uint64_t contiguous_allocations = 0;
  std::uint64_t vmalloc_allocations = 0;
  std::uint64_t small_allocations = 0;  // objects below a page
  std::uint64_t failures = 0;
  std::uint64_t refusals = 0;  // of these, at once: nothing was freed since a full pass failed
  std::uint64_t nofail_warnings = 0;
  // Frees.
  std::uint64_t frees = 0;
  std::uint64_t cache_overflows = 0;  // that found the CPU's cache full
  std::uint64_t cache_evictions = 0;  // idle buffers taken apart
  // Growth and reclaim.
  std::uint64_t inline_growths = 0;  // chunks that callers had to populate themselves
  std::uint64_t keeper_growths = 0;  // that the pool's thread populated ahead
  std::uint64_t trimmed_chunks = 0;
  std::uint64_t reclaims = 0;  // passes that callers made because nothing was left
  std::uint64_t shrinker_calls = 0;
  Bytes shrinker_bytes{};
  // The window.
  std::uint64_t purges = 0;
  std::uint64_t purged_pages = 0;
  std::uint64_t purge_calls = 0;  // system calls that purges made
  std::uint64_t map_retries = 0;  // purges that a mapping had to wait for
  std::uint64_t mappings = 0;     // kernel mappings in use by the window, an upper bound
  std::uint64_t max_mappings = 0;
  // Memory. live + cached + quarantined + free = populated, but for what moves meanwhile.
  Bytes capacity{};
  Bytes populated{};    // taken from the system
  Bytes free{};         // in the page allocator's free lists
  Bytes cached{};       // idle buffers, and what slabs hold beside small objects
  Bytes quarantined{};  // freed buffers that a hardened pool keeps
  Bytes live{};         // held by callers: in whole pages, small objects by size class
  Bytes small{};        // of it, in small objects
  Bytes lazy{};         // address space of aliases that wait for a purge
  Bytes metadata{};     // records and tables that the pool keeps beside, at least
  std::array<std::uint64_t, 11> free_blocks{};  // by order, as in /proc/buddyinfo
  std::array<SizeClassStats, kPoolSizeClasses> classes{};
  // Times of allocations that neither cache nor free lists served: bucket i from 2^(i-1) up to
  // 2^i ns.
  std::array<std::uint64_t, 40> slow_allocation_ns{};
};

// A time in ns that a share `q` (0 to 1) of the allocations in slow_allocation_ns did not pass: the
// upper end of a bucket, so up to twice the true one. 0 if there are none.
[[nodiscard]] std::uint64_t slow_allocation_quantile_ns(const PoolStats& stats, double q);

// One JSON object, one line. Throws std::bad_alloc as std::string does.
[[nodiscard]] std::string to_json(const PoolStats& stats);
// Prometheus text format; every name begins with keel_pool_.
[[nodiscard]] std::string to_prometheus(const PoolStats& stats);

}  // namespace keel
