// threads: do threads that have nothing to do with each other stand in each other's way?
//
// Each of 1, 2, 4, 8 threads allocates buffers of the sizes of fifo.pow2 and frees its own, 256
// behind, without touching any. Up to as many threads as there are CPUs each has a CPU of its own.
//
//   rate_N   thousand buffers a second of all N threads together, after each has run for a while
//   over_N   rate_2 / rate_1, and rate_4, rate_8 / rate_2
#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "memory/workload.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBehind = 256;
constexpr std::uint64_t kCheckEvery = 64;

// What the threads share. Relaxed suffices: nothing is handed over through them.
struct Stage {
  std::atomic<unsigned> ready{0};
  std::atomic<bool> counting{false};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> counted{0};
};

void churn(const Backend& backend, Stage& stage, std::uint64_t seed, int cpu) {
  if (cpu >= 0) {
    (void)pin_to_cpu(static_cast<unsigned>(cpu));
  }
  FifoSizes sizes(false, seed);
  std::array<void*, kBehind> ring{};
  std::uint64_t at = 0;
  const auto step = [&] {
    void*& slot = ring[at++ % kBehind];
    if (slot != nullptr) {
      backend.free(slot);
    }
    const std::size_t bytes = sizes.next();
    slot = backend.allocate(bytes);
    need(slot, bytes);
  };
  while (at < 8 * kBehind) {
    step();
  }
  stage.ready.fetch_add(1, std::memory_order_relaxed);
  while (!stage.counting.load(std::memory_order_relaxed)) {
    step();
  }
  const std::uint64_t start = at;
  do {  // Once at least: a thread may come to run when all is over.
    step();
  } while (at % kCheckEvery != 0 || !stage.stop.load(std::memory_order_relaxed));
  stage.counted.fetch_add(at - start, std::memory_order_relaxed);
  for (void* buffer : ring) {
    backend.free(buffer);
  }
}

double rate_of(const Backend& backend, unsigned count, double seconds) {
  Stage stage;
  std::vector<std::thread> threads;
  const bool pinned = count <= usable_cpus();
  for (unsigned i = 0; i < count; ++i) {
    threads.emplace_back([&backend, &stage, i, pinned] {
      churn(backend, stage, 88172645463325252 + i, pinned ? static_cast<int>(i) : -1);
    });
  }
  while (stage.ready.load(std::memory_order_relaxed) < count) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const std::uint64_t start_ns = monotonic_ns();
  stage.counting = true;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stage.stop = true;
  const auto elapsed_ns = static_cast<double>(monotonic_ns() - start_ns);
  for (std::thread& thread : threads) {
    thread.join();
  }
  return static_cast<double>(stage.counted) / elapsed_ns * 1e6;
}

}  // namespace

void run_threads(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  const double seconds = options.smoke ? 0.005 : 0.2;
  const double one = rate_of(backend, 1, seconds);
  const double two = rate_of(backend, 2, seconds);
  const double four = rate_of(backend, 4, seconds);
  const double eight = rate_of(backend, 8, seconds);
  figures = {{"rate_1", one},        {"rate_2", two},       {"rate_4", four},
             {"rate_8", eight},      {"over_2", two / one}, {"over_4", four / two},
             {"over_8", eight / two}};
}

}  // namespace keel::bench
