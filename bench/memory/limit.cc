// limit: what can be had at the limit when half of the memory is free, but in pieces?
//
// The limit is 512 MiB: of a pool its capacity, of a malloc RLIMIT_DATA, that much above what the
// process has at the start. It is filled with 1 MiB buffers, each page written, until there are no
// more; every second one is freed; then come requests for 4 MiB until one is refused.
//
//   fit            4 MiB buffers got, of those that the freed bytes could hold
//   call_p99       CPU time of these calls in us (with so few calls nearly the dearest one)
//   refuse_nowait  ns to be refused, 99 % of the calls, by a request that must not wait (keel only)
//   refuse_kernel  the same by a plain request, after one that has found nothing
//
// RLIMIT_DATA counts what is mapped, resident or not.
#include <sys/resource.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "keel/alloc/pool.h"
#include "keel/measure/histogram.h"
#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "memory/workload.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMostBuffers = 4096;
constexpr std::size_t kLargeBytes = 4 * kMiB;
constexpr std::uint64_t kRefusals = 10'000;
constexpr std::uint64_t kRefusalsNs = 200'000'000;

std::size_t data_bytes() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  std::size_t kib = 0;
  for (char line[256]; file != nullptr && std::fgets(line, sizeof line, file) != nullptr;) {
    if (std::strncmp(line, "VmData:", 7) == 0) {
      kib = std::strtoull(line + 7, nullptr, 10);
    }
  }
  if (file != nullptr) {
    std::fclose(file);
  }
  return kib * kKiB;
}

// RLIMIT_DATA while it lives: what comes after (printing) must not fail.
class DataLimit {
 public:
  explicit DataLimit(std::size_t more_bytes) {
    ::getrlimit(RLIMIT_DATA, &before_);
    const rlimit limit{data_bytes() + more_bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_DATA, &limit);
  }
  ~DataLimit() { ::setrlimit(RLIMIT_DATA, &before_); }
  DataLimit(const DataLimit&) = delete;
  DataLimit& operator=(const DataLimit&) = delete;

 private:
  rlimit before_{};
};

struct Buffers {
  std::array<void*, kMostBuffers> at{};
  std::size_t count = 0;
};

void take_all(const Backend& backend, Buffers& buffers) {
  while (buffers.count < kMostBuffers) {
    void* buffer = backend.allocate(kMiB);
    if (buffer == nullptr) {
      return;
    }
    fill(buffer, kMiB);
    buffers.at[buffers.count++] = buffer;
  }
}

std::size_t free_every_second(const Backend& backend, const Buffers& buffers) {
  std::size_t freed = 0;
  for (std::size_t i = 0; i < buffers.count; i += 2, ++freed) {
    backend.free(buffers.at[i]);
  }
  return freed;
}

// Nothing if the request is granted after all.
template <class Request>
std::optional<double> refusal_p99_ns(const Request& request) {
  Histogram times;
  const std::uint64_t end_ns = monotonic_ns() + kRefusalsNs;
  while (times.count() < kRefusals && monotonic_ns() < end_ns) {
    const std::uint64_t start = ticks();
    const void* buffer = request();
    const std::uint64_t end = ticks();
    if (buffer != nullptr) {
      return std::nullopt;
    }
    times.add(end - start);
  }
  return times.quantile(0.99) * ns_per_tick();
}

}  // namespace

void run_limit(const Backend& backend, const WorkloadOptions&, FigureList& figures) {
  static Buffers small, large;
  static Histogram call_ns;
  (void)pin_to_cpu(0);
  (void)ns_per_tick();
  const bool is_keel = std::strcmp(backend.name, "keel") == 0;
  std::optional<double> kernel_ns, nowait_ns;
  std::size_t possible = 0;
  {
    const DataLimit limit(is_keel ? std::size_t{16} << 30 : 512 * kMiB);
    take_all(backend, small);
    possible = free_every_second(backend, small) * kMiB / kLargeBytes;
    for (void* buffer = nullptr; large.count < kMostBuffers; large.at[large.count++] = buffer) {
      const std::uint64_t start_ns = thread_cpu_ns();
      buffer = backend.allocate(kLargeBytes);
      if (buffer == nullptr) {
        break;
      }
      call_ns.add(thread_cpu_ns() - start_ns);
    }
    kernel_ns = refusal_p99_ns([&backend] { return backend.allocate(kLargeBytes); });
    if (is_keel) {
      nowait_ns = refusal_p99_ns([] {
        return keel_pool().kvmalloc(kLargeBytes, AllocFlags::kNoWait | AllocFlags::kNoWarn);
      });
    }
  }
  figures.emplace_back("fit", static_cast<double>(large.count) / static_cast<double>(possible));
  figures.emplace_back("small_buffers", static_cast<double>(small.count));
  figures.emplace_back("large_buffers", static_cast<double>(large.count));
  if (kernel_ns) {
    figures.emplace_back("refuse_kernel", *kernel_ns);
  }
  if (nowait_ns) {
    figures.emplace_back("refuse_nowait", *nowait_ns);
  }
  if (large.count != 0) {
    figures.emplace_back("call_p99", call_ns.quantile(0.99) / 1000);
  }
}

}  // namespace keel::bench
