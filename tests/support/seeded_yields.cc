// With KEEL_TEST_YIELD_SEED=n in the environment, every thread of a test program yields or sleeps
// for some microseconds now and then where it locks, unlocks, waits or wakes: a machine of few CPUs
// then shows orders that it hardly would, above all to ThreadSanitizer. Debug builds only.
//
// Each thread draws from the seed and the number of its first point; what the kernel makes of it
// stays the kernel's. Runs that repeat are the simulator's (sim_scheduler.h).
#include <sched.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "keel/base/thread_scheduler.h"

#if defined(KEEL_DEBUG)

namespace {

constexpr std::uint64_t kYieldOneIn = 8;
constexpr std::uint64_t kSleepOneIn = 128;
constexpr long kMostSleepNs = 50'000;

std::uint64_t g_seed = 0;

// SplitMix64.
std::uint64_t next(std::uint64_t& state) {
  std::uint64_t value = (state += 0x9e3779b97f4a7c15U);
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

void yield_by_seed(keel::ThreadPoint /*what*/) {
  // Relaxed: each thread needs a number of its own.
  static std::atomic<std::uint64_t> threads{0};
  thread_local std::uint64_t state =
      g_seed * 0x2545f4914f6cdd1dU + threads.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t draw = next(state);
  if (draw % kSleepOneIn == 0) {
    const struct timespec pause { 0, static_cast<long>(draw / kSleepOneIn % kMostSleepNs) };
    (void)::nanosleep(&pause, nullptr);
  } else if (draw % kYieldOneIn == 0) {
    (void)::sched_yield();
  }
}

const bool g_installed = [] {
  const char* set = std::getenv("KEEL_TEST_YIELD_SEED");
  if (set == nullptr) {
    return false;
  }
  g_seed = std::strtoull(set, nullptr, 0);
  (void)std::fprintf(stderr, "KEEL_TEST_YIELD_SEED=%llu\n",
                     static_cast<unsigned long long>(g_seed));
  (void)keel::set_thread_point_hook(yield_by_seed);
  return true;
}();

}  // namespace

#endif
