// CPU time of a short act: many in a row between two readings of the thread's clock.
#pragma once

#include "keel/measure/ticks.h"

namespace keel::bench {

// ns of CPU for each call, after one that is not counted; runs for at least `least_ns`.
template <class Act>
double cpu_ns_each(std::uint64_t least_ns, const Act& act) {
  constexpr std::uint64_t kBatch = 16;
  act();
  std::uint64_t calls = 0;
  const std::uint64_t start_ns = thread_cpu_ns();
  std::uint64_t elapsed_ns = 0;
  do {
    for (std::uint64_t i = 0; i < kBatch; ++i) {
      act();
    }
    calls += kBatch;
    elapsed_ns = thread_cpu_ns() - start_ns;
  } while (elapsed_ns < least_ns);
  return static_cast<double>(elapsed_ns) / static_cast<double>(calls);
}

}  // namespace keel::bench
