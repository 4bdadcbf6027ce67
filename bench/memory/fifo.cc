// fifo and burst: one thread allocates and writes, another frees 256 buffers behind (fifo_pair.h).
//
//   fifo   a warm-up, a timed pass (rate, quantiles, page faults), then an untimed pass that stops
//          every 256 buffers to read the resident memory, which takes too long for a timed one.
//   burst  2,048 buffers at a time, then all are freed and both threads sleep for 200 ms. The first
//          round counts in the quantiles, as it does for a program that starts; the quantiles named
//          steady_ and the page faults leave it out.
//
// The peaks of live and resident memory are taken over all passes.
#include <memory>
#include <string>

#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "memory/fifo_pair.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kBurst = 2048;
constexpr std::uint64_t kIdleNs = 200'000'000;

void add_quantiles(FigureList& figures, const std::string& name, const Histogram& times) {
  const double ns = ns_per_tick();
  figures.emplace_back(name + "_p50", times.quantile(0.5) * ns);
  figures.emplace_back(name + "_p99", times.quantile(0.99) * ns);
  figures.emplace_back(name + "_p999", times.quantile(0.999) * ns);
  figures.emplace_back(name + "_max", times.max() * ns);
}

void add_memory(FigureList& figures, const FifoPair& fifo) {
  const auto resident = static_cast<double>(fifo.peak_resident);
  const auto live = static_cast<double>(fifo.peak_live);
  figures.emplace_back("resident_mib", resident / static_cast<double>(kMiB));
  figures.emplace_back("live_mib", live / static_cast<double>(kMiB));
  figures.emplace_back("resident_over_live", resident / live);
}

}  // namespace

void run_fifo(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  const std::uint64_t timed = options.smoke ? 2'000 : 200'000;
  const std::uint64_t around = options.smoke ? 500 : 20'000;
  const auto fifo = std::make_unique<FifoPair>(backend, options.any_size);
  // Timed as well, so that the timing's own code and counters are not first touched later.
  fifo->set_timed(true);
  fifo->run(around);
  fifo->sample();
  fifo->forget_times();
  fifo->set_timed(false);
  fifo->run(2 * FifoPair::kBehind);
  fifo->set_timed(true);
  const std::uint64_t faults = minor_faults();
  const std::uint64_t start_ns = monotonic_ns();
  fifo->run(timed);
  const auto elapsed_ns = static_cast<double>(monotonic_ns() - start_ns);
  const auto faulted = static_cast<double>(minor_faults() - faults);
  fifo->set_timed(false);
  fifo->sample();
  fifo->run_sampled(around);

  figures.emplace_back("rate", static_cast<double>(timed) / elapsed_ns * 1e6);
  add_quantiles(figures, "alloc", fifo->alloc_times);
  add_quantiles(figures, "free", fifo->free_times);
  add_quantiles(figures, "ready", fifo->ready_times);
  figures.emplace_back(
      "alloc_free",
      (fifo->alloc_times.quantile(0.5) + fifo->free_times.quantile(0.5)) * ns_per_tick());
  figures.emplace_back("faults", faulted / static_cast<double>(timed));
  add_memory(figures, *fifo);
}

void run_burst(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  const int rounds = options.smoke ? 2 : 10;
  const auto fifo = std::make_unique<FifoPair>(backend, false);
  Histogram first;
  std::uint64_t faults = 0;
  fifo->set_timed(true);
  for (int round = 0; round < rounds; ++round) {
    if (round == 1) {
      first = fifo->ready_times;
      fifo->ready_times = {};
      faults = minor_faults();
    }
    fifo->run(kBurst);
    fifo->sample();
    fifo->drain();
    fifo->sleep(options.smoke ? kIdleNs / 20 : kIdleNs);
  }
  const auto faulted = static_cast<double>(minor_faults() - faults);
  add_quantiles(figures, "steady_ready", fifo->ready_times);
  fifo->ready_times.merge(first);
  add_quantiles(figures, "alloc", fifo->alloc_times);
  add_quantiles(figures, "free", fifo->free_times);
  add_quantiles(figures, "ready", fifo->ready_times);
  figures.emplace_back("faults", faulted / static_cast<double>((rounds - 1) * int{kBurst}));
  add_memory(figures, *fifo);
}

}  // namespace keel::bench
