// fragmented: two threads allocate and free 64 KiB in a pool that is 90 % taken and has no free run
// above 4 pages, for as long as asked; made to be watched by perf (bench/lock_share.sh).
//
// Each holds 16 buffers and replaces a random one, so that most requests find what was just freed
// and some do not.
#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "keel/measure/fragmented_pool.h"
#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "memory/workload.h"

namespace keel::bench {
namespace {

constexpr std::size_t kHeld = 16;
constexpr std::size_t kBytes = 64 * kKiB;
constexpr std::uint64_t kBatch = 256;

std::uint64_t churn(const Backend& backend, unsigned cpu, std::uint64_t end_ns) {
  (void)pin_to_cpu(cpu);
  std::array<void*, kHeld> held{};
  std::uint64_t random = 88172645463325252 + cpu;
  std::uint64_t operations = 0;
  while (monotonic_ns() < end_ns) {
    for (std::uint64_t i = 0; i < kBatch; ++i, ++operations) {
      void*& slot = held[(next_random(random) >> 20) % kHeld];
      if (slot != nullptr) {
        backend.free(slot);
      }
      slot = backend.allocate(kBytes);
      need(slot, kBytes);
    }
  }
  for (void* buffer : held) {
    if (buffer != nullptr) {
      backend.free(buffer);
    }
  }
  return operations;
}

}  // namespace

void run_fragmented(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  if (std::strcmp(backend.name, "keel") == 0) {
    fragment(keel_pool(), 4, 40);
  }
  const double seconds = options.smoke ? 0.1 : options.seconds;
  const std::uint64_t end_ns = monotonic_ns() + static_cast<std::uint64_t>(seconds * 1e9);
  std::uint64_t second = 0;
  std::thread thread([&] { second = churn(backend, 1, end_ns); });
  const std::uint64_t first = churn(backend, 0, end_ns);
  thread.join();
  figures.emplace_back("rate", static_cast<double>(first + second) / seconds / 1000);
}

}  // namespace keel::bench
