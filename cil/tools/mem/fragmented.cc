// fragmented: does an allocation cost more than the copy that it is made for?
//
// A pool of 256 MiB, nine tenths taken, no free run longer than 4 pages; 64 KiB are had and freed.
//
//   warm    what was just freed is asked for again
//   cold    everything idle was given up before; 256 buffers one after the other, then all are
//           freed and purged, of which each bears its share
//   memcpy  64 KiB copied from one place to another, both in the CPU's caches
#include <cstring>
#include <memory>
#include <vector>

#include "keel/measure/fragmented_pool.h"
#include "mem/workload.h"

namespace keel::tools {
namespace {

constexpr std::size_t kBytes = 64 * kKiB;
constexpr std::size_t kColdBuffers = 256;
constexpr int kBatch = 16;

// `act` again and again, each timed.
template <class Act>
Json repeated(const char* what, const char* source, double seconds, const Act& act) {
  auto acts = std::make_unique<Acts>();
  act();
  const Deadline deadline(seconds);
  const std::uint64_t faults = thread_faults();
  const std::uint64_t start_ns = bench::monotonic_ns();
  do {  // Once, however late it is.
    for (int i = 0; i < kBatch; ++i) {
      const std::uint64_t start = bench::ticks();
      act();
      acts->ticks.add(bench::ticks() - start);
    }
  } while (!deadline.passed());
  acts->seconds = static_cast<double>(bench::monotonic_ns() - start_ns) * 1e-9;
  acts->faults = thread_faults() - faults;
  return row_of("fragmented", what, source, *acts);
}

void cold_round(Pool& pool, std::vector<void*>& buffers, Acts& acts) {
  (void)pool.trim();
  std::vector<std::uint64_t> times(buffers.size());
  const std::uint64_t faults = thread_faults();
  const std::uint64_t start_ns = bench::monotonic_ns();
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const std::uint64_t start = bench::ticks();
    buffers[i] = pool.kvmalloc(kBytes);
    times[i] = bench::ticks() - start;
    need(buffers[i], kBytes);
  }
  const std::uint64_t start = bench::ticks();
  for (void* buffer : buffers) {
    pool.kvfree(buffer);
  }
  pool.purge();
  const std::uint64_t share = (bench::ticks() - start) / buffers.size();
  acts.seconds += static_cast<double>(bench::monotonic_ns() - start_ns) * 1e-9;
  acts.faults += thread_faults() - faults;
  for (const std::uint64_t time : times) {
    acts.ticks.add(time + share);
  }
}

Json cold(Pool& pool, double seconds) {
  auto acts = std::make_unique<Acts>();
  std::vector<void*> buffers(kColdBuffers);
  const Deadline deadline(seconds);
  do {  // Once, however late it is.
    cold_round(pool, buffers, *acts);
  } while (!deadline.passed());
  return row_of("fragmented", "64 KiB cold", "keel", *acts);
}

}  // namespace

Json run_fragmented(const BenchPlan& plan) {
  const std::unique_ptr<Pool> pool = bench::make_fragmented_pool(4, 40);
  const double each = plan.seconds / 3;
  Json rows = Json::array();
  rows.push_back(
      repeated("64 KiB warm", "keel", each, [&pool] { pool->kvfree(pool->kvmalloc(kBytes)); }));
  rows.push_back(cold(*pool, each));
  const std::vector<char> from(kBytes, 'x');
  std::vector<char> to(kBytes);
  rows.push_back(repeated("64 KiB copied", "memcpy", each, [&] {
    std::memcpy(to.data(), from.data(), kBytes);
    asm volatile("" : : "r"(to.data()) : "memory");
  }));
  return rows;
}

}  // namespace keel::tools
