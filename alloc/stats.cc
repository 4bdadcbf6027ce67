// A pool's statistics: gathered, and as JSON and Prometheus text.
#include <algorithm>
#include <array>

#include "poison.h"
#include "pool_impl.h"

namespace keel {
namespace {

struct Field {
  const char* name;
  const char* help;
  bool counter;  // else a gauge
  std::uint64_t (*get)(const PoolStats&);
};

#define KEEL_COUNT(field, help)                                    \
  Field {                                                          \
#field, help, true, [](const PoolStats& s) { return s.field; } \
  }
#define KEEL_LEVEL(field, help)                                     \
  Field {                                                           \
#field, help, false, [](const PoolStats& s) { return s.field; } \
  }
#define KEEL_BYTES(field, name, help)                                     \
  Field {                                                                 \
    name, help, false, [](const PoolStats& s) { return s.field.value(); } \
  }

constexpr Field kFields[] = {
    KEEL_COUNT(cache_hits, "allocations served by the CPU's own cache"),
    KEEL_COUNT(cache_refills, "allocations served by the buffers that CPUs exchange"),
    KEEL_COUNT(contiguous_allocations, "buffers made from the free lists"),
    KEEL_COUNT(vmalloc_allocations, "buffers gathered and mapped"),
    KEEL_COUNT(small_allocations, "objects below a page"),
    KEEL_COUNT(failures, "allocations that failed"),
    KEEL_COUNT(refusals, "failures answered at once"),
    KEEL_COUNT(nofail_warnings, "messages of allocations that may not fail"),
    KEEL_COUNT(frees, "buffers freed"),
    KEEL_COUNT(cache_overflows, "frees that found the CPU's cache full"),
    KEEL_COUNT(cache_evictions, "idle buffers taken apart"),
    KEEL_COUNT(inline_growths, "chunks populated by callers"),
    KEEL_COUNT(keeper_growths, "chunks populated by the pool's thread"),
    KEEL_COUNT(trimmed_chunks, "chunks given back to the system"),
    KEEL_COUNT(reclaims, "reclaim passes by callers"),
    KEEL_COUNT(shrinker_calls, "calls of shrinkers"),
    KEEL_BYTES(shrinker_bytes, "shrinker_bytes", "bytes that shrinkers gave"),
    KEEL_COUNT(purges, "purges of lazy aliases"),
    KEEL_COUNT(purged_pages, "pages of aliases removed"),
    KEEL_COUNT(purge_calls, "system calls of purges"),
    KEEL_COUNT(map_retries, "purges that a mapping waited for"),
    KEEL_LEVEL(mappings, "kernel mappings in use"),
    KEEL_LEVEL(max_mappings, "kernel mappings allowed"),
    KEEL_BYTES(capacity, "capacity_bytes", "hard cap"),
    KEEL_BYTES(populated, "populated_bytes", "memory taken from the system"),
    KEEL_BYTES(free, "free_bytes", "memory in the free lists"),
    KEEL_BYTES(cached, "cached_bytes", "idle buffers"),
    KEEL_BYTES(quarantined, "quarantined_bytes", "freed buffers kept out of use"),
    KEEL_BYTES(live, "live_bytes", "memory held by callers"),
    KEEL_BYTES(small, "small_bytes", "memory held in small objects"),
    KEEL_BYTES(lazy, "lazy_bytes", "addresses that wait for a purge"),
    KEEL_BYTES(metadata, "metadata_bytes", "records and tables"),
};

#undef KEEL_COUNT
#undef KEEL_LEVEL
#undef KEEL_BYTES

void append(std::string& out, const char* before, std::uint64_t value, const char* after = "") {
  out += before;
  out += std::to_string(value);
  out += after;
}

template <class Array>
void append_array(std::string& out, const char* name, const Array& values) {
  out += ",\"";
  out += name;
  out += "\":[";
  const char* separator = "";
  for (const std::uint64_t value : values) {
    append(out, separator, value);
    separator = ",";
  }
  out += "]";
}

}  // namespace

// Of what follows much asks for locks, which a parent's thread may have held when it forked.
PoolStats Pool::stats() const {
  if (!owned_by_this_process()) {
    return {};
  }
  const Impl& impl = *impl_;
  const PoolCounters& counters = impl.counters;
  const CacheStats cache = impl.cache.stats();
  const WindowStats window = impl.window->stats();
  const ShrinkerCounts shrinkers = impl.shrinkers.counts();
  const CpuStacks& stacks = impl.cache.stacks();
  PoolStats stats;
  for (unsigned c = 0; c < kSizeClasses; ++c) {
    SizeClassStats& of = stats.classes[c];
    of.size = Bytes(std::uint64_t{pages_of_class(c)} << kPageShift);
    of.hits = stacks.pops(c);
    of.puts = stacks.pushes(c);
    for (unsigned cpu = 0; cpu < stacks.cpus(); ++cpu) {
      of.idle += stacks.count(cpu, c);
    }
  }
  const KmallocStats small = impl.small->stats();
  stats.small_allocations = small.allocations;
  stats.small = small.live;
  stats.cache_hits = cache.hits;
  stats.frees = cache.puts + small.frees;
  stats.cache_refills = cache.refills;
  stats.contiguous_allocations = counters.get(PoolCount::kContiguous);
  stats.vmalloc_allocations = counters.get(PoolCount::kVmalloc);
  stats.failures = counters.get(PoolCount::kFailures);
  stats.refusals = counters.get(PoolCount::kRefusals);
  stats.nofail_warnings = counters.get(PoolCount::kNofailWarnings);
  stats.frees += counters.get(PoolCount::kSlowFrees);
  stats.cache_overflows = cache.overflows;
  stats.cache_evictions = cache.evictions;
  stats.inline_growths = counters.get(PoolCount::kInlineGrowths);
  stats.keeper_growths = counters.get(PoolCount::kKeeperGrowths);
  stats.trimmed_chunks = counters.get(PoolCount::kTrimmedChunks);
  stats.reclaims = counters.get(PoolCount::kReclaims);
  stats.shrinker_calls = shrinkers.calls;
  stats.shrinker_bytes = shrinkers.given;
  stats.purges = window.purges;
  stats.purged_pages = window.purged_pages;
  stats.purge_calls = window.purge_calls;
  stats.map_retries = window.map_retries;
  stats.mappings = window.mappings;
  stats.max_mappings = window.max_mappings;
  const PageCounts counts = impl.pages->counts();
  stats.capacity = Bytes(bytes_of(impl.store->capacity()));
  stats.populated = Bytes(bytes_of(counts.present));
  stats.free = Bytes(bytes_of(counts.free));
  const Bytes in_slabs = small.held > small.live ? small.held - small.live : Bytes(0);
  stats.cached = Bytes(bytes_of(cache.in_cpus + cache.in_depot)) + in_slabs;
  stats.quarantined = Bytes(bytes_of(impl.hardened.pages()));
  const Bytes unused = stats.free + stats.cached + stats.quarantined;
  stats.live = stats.populated > unused ? stats.populated - unused : Bytes(0);
  stats.lazy = Bytes(bytes_of(window.lazy));
  stats.metadata = Bytes(counts.present.value() * sizeof(FrameRecord) +
                         stacks.cpus() * std::uint64_t{16384} + sizeof(Impl)) +
                   small.marks + window.tables;
  stats.free_blocks = impl.pages->buddyinfo();
  for (unsigned i = 0; i < Histogram::kBuckets; ++i) {
    stats.slow_allocation_ns[i] = impl.slow_ns.bucket(i);
  }
  return stats;
}

std::size_t Pool::holders(std::span<OwnerBytes> largest) const {
  if (!owned_by_this_process()) {
    return 0;
  }
  // As many as the page allocator tells apart, and the owners of small objects.
  std::array<OwnerBytes, 65 + OwnerIds::kMost> all;
  std::array<Holder, 65> by_pages;
  std::size_t count = impl_->pages->holders(by_pages);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = {by_pages[i].owner, Bytes(bytes_of(by_pages[i].pages))};
  }
  impl_->add_small_holders(all, count);
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(count);
  std::sort(all.begin(), end,
            [](const OwnerBytes& a, const OwnerBytes& b) { return a.held > b.held; });
  count = std::min(count, largest.size());
  std::copy_n(all.begin(), count, largest.begin());
  return count;
}

PoolFacts Pool::facts() const {
  const CpuStacks& stacks = impl_->cache.stacks();
  const Result<Bytes> huge = impl_->store->huge_bytes();
  return {.config = impl_->config,
          .cpus = stacks.cpus(),
          .restartable_sequences = stacks.uses_rseq(),
          .watched = runs_on_valgrind(),
          .huge_advice_taken = impl_->store->huge_advice_taken(),
          .huge = huge ? *huge : Bytes(0)};
}

std::uint64_t slow_allocation_quantile_ns(const PoolStats& stats, double q) {
  std::uint64_t count = 0;
  for (const std::uint64_t bucket : stats.slow_allocation_ns) {
    count += bucket;
  }
  const auto most = static_cast<std::uint64_t>(q * static_cast<double>(count));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < stats.slow_allocation_ns.size(); ++i) {
    seen += stats.slow_allocation_ns[i];
    if (seen > most || (seen == count && count != 0)) {
      return std::uint64_t{1} << i;
    }
  }
  return 0;
}

std::string to_json(const PoolStats& stats) {
  std::string out = "{";
  const char* separator = "\"";
  for (const Field& field : kFields) {
    out += separator;
    out += field.name;
    append(out, "\":", field.get(stats));
    separator = ",\"";
  }
  append_array(out, "free_blocks", stats.free_blocks);
  append_array(out, "slow_allocation_ns", stats.slow_allocation_ns);
  out += ",\"classes\":[";
  separator = "";
  for (const SizeClassStats& of : stats.classes) {
    out += separator;
    append(out, "{\"bytes\":", of.size.value());
    append(out, ",\"hits\":", of.hits);
    append(out, ",\"puts\":", of.puts);
    append(out, ",\"idle\":", of.idle, "}");
    separator = ",";
  }
  out += "]}";
  return out;
}

std::string to_prometheus(const PoolStats& stats) {
  std::string out;
  for (const Field& field : kFields) {
    const std::string name =
        std::string("keel_pool_") + field.name + (field.counter ? "_total" : "");
    out += "# HELP " + name + " " + field.help + "\n";
    out += "# TYPE " + name + (field.counter ? " counter\n" : " gauge\n");
    append(out, (name + " ").c_str(), field.get(stats), "\n");
  }
  out += "# HELP keel_pool_free_blocks free blocks by order\n# TYPE keel_pool_free_blocks gauge\n";
  for (std::size_t order = 0; order < stats.free_blocks.size(); ++order) {
    append(out, "keel_pool_free_blocks{order=\"", order, "\"}");
    append(out, " ", stats.free_blocks[order], "\n");
  }
  return out;
}

}  // namespace keel
