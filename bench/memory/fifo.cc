// fifo and burst: one thread allocates and writes, another frees 256 buffers behind.
//
// The producer runs on CPU 0, the consumer on CPU 1; buffers go through a single-producer ring and
// 256 to 320 of them are live: the consumer leaves the last 256 alone, the producer waits at 320.
//
//   fifo   a warm-up, a timed pass (rate, quantiles, page faults), then an untimed pass that stops
//          every 256 buffers to read the resident memory, which takes too long for a timed one.
//   burst  2,048 buffers at a time, then all are freed and both threads sleep for 200 ms. The first
//          round counts in the quantiles, as it does for a program that starts; the quantiles named
//          steady_ and the page faults leave it out.
//
// Live is what was asked for in the last 256 buffers; its peak is taken over all passes.
#include <array>
#include <atomic>
#include <memory>
#include <thread>

#include "memory/workload.h"
#include "support/histogram.h"
#include "support/process.h"
#include "support/ticks.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kBehind = 256;
constexpr std::uint64_t kMostLive = 320;
constexpr std::uint64_t kSlots = 512;
constexpr std::uint64_t kSampleEvery = 256;
constexpr std::uint64_t kBurst = 2048;
constexpr std::uint64_t kIdleNs = 200'000'000;
constexpr unsigned kSpins = 10'000;

// Spins, and gives the CPU away now and then for machines on which both threads share one.
template <class Condition>
void wait_until(const Condition& condition) {
  for (unsigned spins = 0; !condition(); ++spins) {
    if (spins % kSpins == kSpins - 1) {
      std::this_thread::yield();
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

// Stores with release pair with the other side's acquire loads of the same number: pushed_ hands a
// slot to the consumer, freed_ gives it back.
struct Ring {
  std::array<void*, kSlots> slots{};
  alignas(64) std::atomic<std::uint64_t> pushed{0};
  alignas(64) std::atomic<std::uint64_t> freed{0};
  // Settings; written between passes, and it does not matter when exactly they are seen.
  alignas(64) std::atomic<std::uint64_t> behind{kBehind};
  std::atomic<bool> timed{false};
  std::atomic<bool> stop{false};
};

void consume(const Backend& backend, Ring& ring, Histogram& free_times) {
  (void)pin_to_cpu(1);
  std::uint64_t at = 0;
  for (;;) {
    wait_until([&] {
      return ring.pushed.load(std::memory_order_acquire) >
                 at + ring.behind.load(std::memory_order_relaxed) ||
             ring.stop.load(std::memory_order_relaxed);
    });
    if (at == ring.pushed.load(std::memory_order_acquire)) {
      return;  // stop, and nothing left
    }
    void* buffer = ring.slots[at % kSlots];
    const std::uint64_t start = ticks();
    backend.free(buffer);
    const std::uint64_t end = ticks();
    if (ring.timed.load(std::memory_order_relaxed)) {
      free_times.add(end - start);
    }
    ring.freed.store(++at, std::memory_order_release);
  }
}

class Fifo {
 public:
  Fifo(const Backend& backend, bool any_size)
      : backend_(backend), sizes_(any_size, 88172645463325252) {
    (void)pin_to_cpu(0);
    consumer_ = std::thread([this] { consume(backend_, ring_, free_times_); });
  }
  ~Fifo() {
    ring_.behind.store(0, std::memory_order_relaxed);
    ring_.stop.store(true, std::memory_order_relaxed);
    consumer_.join();
  }
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;

  void run(std::uint64_t buffers) {
    for (std::uint64_t i = 0; i < buffers; ++i) {
      push_one();
    }
  }

  // One that stops to look: live memory has just grown most when the sizes of the last 256 have.
  void run_sampled(std::uint64_t buffers) {
    std::uint64_t highest = 0;
    for (std::uint64_t i = 0; i < buffers; ++i) {
      push_one();
      if (i % kSampleEvery == 0 || live_ > highest + kMiB) {
        highest = live_ > highest ? live_ : highest;
        sample();
      }
    }
  }

  void sample() {
    const std::uint64_t resident = resident_bytes();
    peak_resident_ = resident > peak_resident_ ? resident : peak_resident_;
  }

  void drain() {
    ring_.behind.store(0, std::memory_order_relaxed);
    wait_until([this] { return ring_.freed.load(std::memory_order_acquire) == pushed_; });
    ring_.behind.store(kBehind, std::memory_order_relaxed);
    live_ = 0;
    live_sizes_.fill(0);
  }

  void set_timed(bool timed) {
    timed_ = timed;
    ring_.timed.store(timed, std::memory_order_relaxed);
  }

  // Drains first: then the consumer is waiting and writes nothing.
  void forget_times() {
    drain();
    alloc_times_ = ready_times_ = free_times_ = {};
  }

  Histogram alloc_times_;
  Histogram ready_times_;  // allocated and filled
  Histogram free_times_;
  std::uint64_t peak_resident_ = 0;
  std::uint64_t peak_live_ = 0;

 private:
  void push_one() {
    const std::size_t bytes = sizes_.next();
    wait_until(
        [this] { return pushed_ - ring_.freed.load(std::memory_order_acquire) < kMostLive; });
    const std::uint64_t start = ticks();
    void* buffer = backend_.allocate(bytes);
    const std::uint64_t allocated = ticks();
    need(buffer, bytes);
    fill(buffer, bytes);
    const std::uint64_t filled = ticks();
    if (timed_) {
      alloc_times_.add(allocated - start);
      ready_times_.add(filled - start);
    }
    ring_.slots[pushed_ % kSlots] = buffer;
    ring_.pushed.store(++pushed_, std::memory_order_release);
    count_live(bytes);
  }

  void count_live(std::size_t bytes) {
    std::size_t& oldest = live_sizes_[pushed_ % kBehind];
    live_ += bytes - oldest;
    oldest = bytes;
    peak_live_ = live_ > peak_live_ ? live_ : peak_live_;
  }

  const Backend& backend_;
  FifoSizes sizes_;
  Ring ring_;
  bool timed_ = false;
  std::uint64_t pushed_ = 0;
  std::uint64_t live_ = 0;
  std::array<std::size_t, kBehind> live_sizes_{};
  std::thread consumer_;
};

void add_quantiles(FigureList& figures, const std::string& name, const Histogram& times) {
  const double ns = ns_per_tick();
  figures.emplace_back(name + "_p50", times.quantile(0.5) * ns);
  figures.emplace_back(name + "_p99", times.quantile(0.99) * ns);
  figures.emplace_back(name + "_p999", times.quantile(0.999) * ns);
  figures.emplace_back(name + "_max", times.max() * ns);
}

void add_memory(FigureList& figures, const Fifo& fifo) {
  const auto resident = static_cast<double>(fifo.peak_resident_);
  const auto live = static_cast<double>(fifo.peak_live_);
  figures.emplace_back("resident_mib", resident / static_cast<double>(kMiB));
  figures.emplace_back("live_mib", live / static_cast<double>(kMiB));
  figures.emplace_back("resident_over_live", resident / live);
}

}  // namespace

void run_fifo(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  const std::uint64_t timed = options.smoke ? 2'000 : 200'000;
  const std::uint64_t around = options.smoke ? 500 : 20'000;
  const auto fifo = std::make_unique<Fifo>(backend, options.any_size);
  // Timed as well, so that the timing's own code and counters are not first touched later.
  fifo->set_timed(true);
  fifo->run(around);
  fifo->sample();
  fifo->forget_times();
  fifo->set_timed(false);
  fifo->run(2 * kBehind);
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
  add_quantiles(figures, "alloc", fifo->alloc_times_);
  add_quantiles(figures, "free", fifo->free_times_);
  add_quantiles(figures, "ready", fifo->ready_times_);
  figures.emplace_back(
      "alloc_free",
      (fifo->alloc_times_.quantile(0.5) + fifo->free_times_.quantile(0.5)) * ns_per_tick());
  figures.emplace_back("faults", faulted / static_cast<double>(timed));
  add_memory(figures, *fifo);
}

void run_burst(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  const int rounds = options.smoke ? 2 : 10;
  const auto fifo = std::make_unique<Fifo>(backend, false);
  Histogram first;
  std::uint64_t faults = 0;
  fifo->set_timed(true);
  for (int round = 0; round < rounds; ++round) {
    if (round == 1) {
      first = fifo->ready_times_;
      fifo->ready_times_ = {};
      faults = minor_faults();
    }
    fifo->run(kBurst);
    fifo->sample();
    fifo->drain();
    const timespec idle{0, static_cast<long>(options.smoke ? kIdleNs / 20 : kIdleNs)};
    nanosleep(&idle, nullptr);
  }
  const auto faulted = static_cast<double>(minor_faults() - faults);
  add_quantiles(figures, "steady_ready", fifo->ready_times_);
  fifo->ready_times_.merge(first);
  add_quantiles(figures, "alloc", fifo->alloc_times_);
  add_quantiles(figures, "free", fifo->free_times_);
  add_quantiles(figures, "ready", fifo->ready_times_);
  figures.emplace_back("faults", faulted / static_cast<double>((rounds - 1) * int{kBurst}));
  add_memory(figures, *fifo);
}

}  // namespace keel::bench
