// loop: every thread allocates one size, touches each page, frees; again. One size after the other.
//
// An operation is all three acts; the touching makes it dearer the larger the buffer, for whatever
// source, and shows what memory that was given back and taken again costs.
#include <memory>
#include <thread>
#include <vector>

#include "mem/workload.h"

namespace keel::tools {
namespace {

constexpr int kWarmUp = 64;
// Between two looks at the clock.
constexpr int kBatch = 16;

void once(const BufferSource& source, std::size_t bytes) {
  void* buffer = source.allocate(bytes);
  need(buffer, bytes);
  write_pages(buffer, bytes, 1);
  source.free(buffer);
}

void run_thread(const BufferSource& source, std::size_t bytes, double seconds, Acts& acts) {
  for (int i = 0; i < kWarmUp; ++i) {
    once(source, bytes);
  }
  const Deadline deadline(seconds);
  const std::uint64_t faults = thread_faults();
  const std::uint64_t start_ns = bench::monotonic_ns();
  do {  // Once, however late it is.
    for (int i = 0; i < kBatch; ++i) {
      const std::uint64_t start = bench::ticks();
      once(source, bytes);
      acts.ticks.add(bench::ticks() - start);
    }
  } while (!deadline.passed());
  acts.seconds = static_cast<double>(bench::monotonic_ns() - start_ns) * 1e-9;
  acts.faults = thread_faults() - faults;
}

Json row_of_size(const BufferSource& source, std::size_t bytes, double seconds, unsigned count) {
  std::vector<std::unique_ptr<Acts>> acts;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) {
    acts.push_back(std::make_unique<Acts>());
    threads.emplace_back([&source, bytes, seconds, of = acts.back().get()] {
      run_thread(source, bytes, seconds, *of);
    });
  }
  for (unsigned i = 0; i < count; ++i) {
    threads[i].join();
    if (i != 0) {
      acts[0]->merge(*acts[i]);
    }
  }
  return row_of("loop", human(Bytes(bytes)), source.name, *acts[0]);
}

}  // namespace

Json run_loop(const BufferSource& source, const BenchPlan& plan) {
  constexpr std::size_t kSizes[] = {4 * kKiB, 16 * kKiB, 64 * kKiB, 256 * kKiB, kMiB, 4 * kMiB};
  Json rows = Json::array();
  for (const std::size_t bytes : kSizes) {
    rows.push_back(row_of_size(source, bytes, plan.seconds / std::size(kSizes), plan.threads));
  }
  return rows;
}

}  // namespace keel::tools
