// loop: one thread allocates one size, touches the first byte of each page, frees; again.
//
// No clock inside: a batch runs for about 4 ms between two readings, and the figure is the median
// of nine batches, in ns for all three acts together.
#include <algorithm>
#include <array>

#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "memory/workload.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBatches = 9;

double seconds_of_batch(const Backend& backend, std::size_t bytes, std::uint64_t operations) {
  const Stopwatch watch;
  for (std::uint64_t i = 0; i < operations; ++i) {
    void* buffer = backend.allocate(bytes);
    need(buffer, bytes);
    for (std::size_t at = 0; at < bytes; at += kPageBytes) {
      static_cast<volatile std::byte*>(buffer)[at] = std::byte{1};
    }
    backend.free(buffer);
  }
  return watch.seconds();
}

double median_ns(const Backend& backend, std::size_t bytes, double batch_seconds) {
  std::uint64_t operations = 16;
  while (seconds_of_batch(backend, bytes, operations) < batch_seconds) {
    operations *= 2;
  }
  std::array<double, kBatches> batches{};
  for (double& seconds : batches) {
    seconds = seconds_of_batch(backend, bytes, operations);
  }
  std::nth_element(batches.begin(), batches.begin() + kBatches / 2, batches.end());
  return batches[kBatches / 2] / static_cast<double>(operations) * 1e9;
}

}  // namespace

void run_loop(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  (void)pin_to_cpu(0);
  const double batch_seconds = options.smoke ? 0.0001 : 0.004;
  for (const auto& [name, bytes] : {std::pair{"4k", 4 * kKiB},
                                    {"16k", 16 * kKiB},
                                    {"64k", 64 * kKiB},
                                    {"256k", 256 * kKiB},
                                    {"1m", kMiB},
                                    {"4m", 4 * kMiB}}) {
    figures.emplace_back(name, median_ns(backend, bytes, batch_seconds));
  }
}

}  // namespace keel::bench
