// limit: what can be had at the limit when half of the memory is free, but in pieces?
//
// The limit is a pool's capacity, and for malloc RLIMIT_DATA, that much above what the process has.
// It is filled with 1 MiB buffers, each page written, until there are no more; every second one is
// freed; then come requests for 4 MiB until one is refused, and as many more to be refused as
// there is time for.
#include <sys/resource.h>

#include <fstream>
#include <memory>
#include <vector>

#include "interrupt.h"
#include "mem/workload.h"

namespace keel::tools {
namespace {

constexpr std::size_t kLargeBytes = 4 * kMiB;
constexpr std::uint64_t kMostRefusals = 100'000;

// What counts against RLIMIT_DATA.
std::size_t data_bytes() {
  std::ifstream status("/proc/self/status");
  std::size_t kib = 0;
  for (std::string word; status >> word && word != "VmData:";) {
  }
  return status >> kib ? kib * kKiB : 0;
}

// RLIMIT_DATA while it lives: what comes after, such as printing, must not fail.
class DataLimit {
 public:
  explicit DataLimit(std::size_t more_bytes) {
    ::getrlimit(RLIMIT_DATA, &before_);
    const rlimit limit{std::min<rlim_t>(data_bytes() + more_bytes, before_.rlim_max),
                       before_.rlim_max};
    ::setrlimit(RLIMIT_DATA, &limit);
  }
  ~DataLimit() { ::setrlimit(RLIMIT_DATA, &before_); }
  DataLimit(const DataLimit&) = delete;
  DataLimit& operator=(const DataLimit&) = delete;

 private:
  rlimit before_{};
};

// Set aside before there is a limit.
struct Run {
  std::vector<void*> buffers;
  std::size_t possible = 0;
  Acts large;
  Acts refused;
};

void fill(const BufferSource& source, std::vector<void*>& buffers) {
  while (buffers.size() < buffers.capacity() && !Interrupt::came()) {
    void* buffer = source.allocate(kMiB);
    if (buffer == nullptr) {
      return;
    }
    write_pages(buffer, kMiB, 64);
    buffers.push_back(buffer);
  }
}

// Requests until one is refused (`wanted` true) or granted (false): `least`, if need be past the
// time, and at most `most`.
void request(const BufferSource& source, bool wanted, std::uint64_t least, std::uint64_t most,
             double seconds, Acts& acts) {
  const Deadline deadline(seconds);
  const std::uint64_t faults = thread_faults();
  const std::uint64_t start_ns = bench::monotonic_ns();
  while (acts.ticks.count() < most && !Interrupt::came() &&
         (acts.ticks.count() < least || !deadline.passed())) {
    const std::uint64_t start = bench::ticks();
    const void* buffer = source.allocate(kLargeBytes);
    const std::uint64_t end = bench::ticks();
    if ((buffer == nullptr) == wanted) {
      break;
    }
    acts.ticks.add(end - start);
  }
  acts.seconds = static_cast<double>(bench::monotonic_ns() - start_ns) * 1e-9;
  acts.faults = thread_faults() - faults;
}

void run_at_limit(const BufferSource& source, double seconds, Run& run) {
  fill(source, run.buffers);
  for (std::size_t i = 0; i < run.buffers.size(); i += 2) {
    source.free(run.buffers[i]);
    ++run.possible;
  }
  run.possible = run.possible * kMiB / kLargeBytes;
  // All that can be had, or what comes next would not be refused.
  const std::size_t all = run.possible + 1;
  request(source, true, all, all, seconds, run.large);
  request(source, false, 1, kMostRefusals, seconds, run.refused);
}

}  // namespace

Json run_limit(bool pool, const BenchPlan& plan) {
  const BufferSource& source =
      pool ? pool_source({.capacity_bytes = plan.limit_bytes}) : malloc_source();
  (void)bench::ns_per_tick();
  const auto run = std::make_unique<Run>();
  run->buffers.reserve(2 * plan.limit_bytes / kMiB);
  if (pool) {
    run_at_limit(source, plan.seconds, *run);
  } else {
    const DataLimit limit(plan.limit_bytes);
    run_at_limit(source, plan.seconds, *run);
  }
  Json large = row_of("limit", "4 MiB had", source.name, run->large);
  large["possible"] = run->possible;
  return Json::array({large, row_of("limit", "4 MiB refused", source.name, run->refused)});
}

}  // namespace keel::tools
