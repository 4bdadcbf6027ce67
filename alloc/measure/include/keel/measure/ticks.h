// The cheapest clock there is: the CPU's time stamp counter where it is one, else CLOCK_MONOTONIC.
//
// A reading is not serialising: it may move by a few ns against its neighbours, which is less than
// a fence would cost. The cost of reading is in every figure, in ours as in the peers'.
#pragma once

#include <ctime>

#include <cstdint>

namespace keel::bench {

[[nodiscard]] inline std::uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

[[nodiscard]] inline std::uint64_t ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return monotonic_ns();
#endif
}

// CPU time of the calling thread, user and kernel.
[[nodiscard]] inline std::uint64_t thread_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// Nanoseconds of a tick. Measured against CLOCK_MONOTONIC at the first call (20 ms).
[[nodiscard]] double ns_per_tick();

}  // namespace keel::bench
