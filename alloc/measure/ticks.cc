#include "keel/measure/ticks.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kCalibrationNs = 20'000'000;

double calibrate() {
  const std::uint64_t start_ns = monotonic_ns();
  const std::uint64_t start = ticks();
  std::uint64_t now_ns = start_ns;
  while (now_ns - start_ns < kCalibrationNs) {
    now_ns = monotonic_ns();
  }
  return static_cast<double>(now_ns - start_ns) / static_cast<double>(ticks() - start);
}

}  // namespace

double ns_per_tick() {
  static const double ratio = calibrate();
  return ratio;
}

}  // namespace keel::bench
