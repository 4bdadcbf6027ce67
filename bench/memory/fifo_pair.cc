#include "memory/fifo_pair.h"

#include <ctime>

#include "keel/measure/process.h"
#include "keel/measure/ticks.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kSampleEvery = 256;
constexpr std::uint64_t kSecondNs = 1'000'000'000;
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

}  // namespace

FifoPair::FifoPair(const Backend& backend, bool any_size)
    : backend_(backend), sizes_(any_size, 88172645463325252) {
  (void)pin_to_cpu(0);
  consumer_ = std::thread([this] { consume(); });
}

FifoPair::~FifoPair() {
  ring_.behind.store(0, std::memory_order_relaxed);
  ring_.stop.store(true, std::memory_order_relaxed);
  consumer_.join();
}

void FifoPair::run(std::uint64_t buffers) {
  for (std::uint64_t i = 0; i < buffers; ++i) {
    push_one();
  }
}

void FifoPair::run_sampled(std::uint64_t buffers) {
  std::uint64_t highest = 0;
  for (std::uint64_t i = 0; i < buffers; ++i) {
    push_one();
    if (i % kSampleEvery == 0 || live_ > highest + kMiB) {
      highest = live_ > highest ? live_ : highest;
      sample();
    }
  }
}

void FifoPair::sample() {
  const std::uint64_t resident = resident_bytes();
  peak_resident = resident > peak_resident ? resident : peak_resident;
}

void FifoPair::drain() {
  ring_.behind.store(0, std::memory_order_relaxed);
  wait_until([this] { return ring_.freed.load(std::memory_order_acquire) == pushed_; });
  ring_.behind.store(kBehind, std::memory_order_relaxed);
  live_ = 0;
  live_sizes_.fill(0);
}

void FifoPair::sleep(std::uint64_t duration_ns) {
  ring_.asleep.store(true, std::memory_order_relaxed);
  const timespec duration{static_cast<time_t>(duration_ns / kSecondNs),
                          static_cast<long>(duration_ns % kSecondNs)};
  nanosleep(&duration, nullptr);
  ring_.asleep.store(false, std::memory_order_relaxed);
  ring_.asleep.notify_one();
}

void FifoPair::set_timed(bool timed) {
  timed_ = timed;
  ring_.timed.store(timed, std::memory_order_relaxed);
}

void FifoPair::forget_times() {
  drain();
  alloc_times = ready_times = free_times = {};
}

void FifoPair::consume() {
  (void)pin_to_cpu(1);
  std::uint64_t at = 0;
  for (;;) {
    wait_until([&] {
      ring_.asleep.wait(true, std::memory_order_relaxed);
      return ring_.pushed.load(std::memory_order_acquire) >
                 at + ring_.behind.load(std::memory_order_relaxed) ||
             ring_.stop.load(std::memory_order_relaxed);
    });
    if (at == ring_.pushed.load(std::memory_order_acquire)) {
      return;  // stop, and nothing left
    }
    void* buffer = ring_.slots[at % kSlots];
    const std::uint64_t start = ticks();
    backend_.free(buffer);
    const std::uint64_t end = ticks();
    if (ring_.timed.load(std::memory_order_relaxed)) {
      free_times.add(end - start);
    }
    ring_.freed.store(++at, std::memory_order_release);
  }
}

void FifoPair::push_one() {
  const std::size_t bytes = sizes_.next();
  wait_until([this] { return pushed_ - ring_.freed.load(std::memory_order_acquire) < kMostLive; });
  const std::uint64_t start = ticks();
  void* buffer = backend_.allocate(bytes);
  const std::uint64_t allocated = ticks();
  need(buffer, bytes);
  fill(buffer, bytes);
  const std::uint64_t filled = ticks();
  if (timed_) {
    alloc_times.add(allocated - start);
    ready_times.add(filled - start);
  }
  ring_.slots[pushed_ % kSlots] = buffer;
  ring_.pushed.store(++pushed_, std::memory_order_release);
  count_live(bytes);
}

void FifoPair::count_live(std::size_t bytes) {
  std::size_t& oldest = live_sizes_[pushed_ % kBehind];
  live_ += bytes - oldest;
  oldest = bytes;
  peak_live = live_ > peak_live ? live_ : peak_live;
}

}  // namespace keel::bench
