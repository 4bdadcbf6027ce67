// memory.cold.*: from how large pieces is it cheaper to map old memory than to take new?
//
// A 1 MiB window over runs of frames that are no neighbours: map, touch, unmap and the purge, each
// time, against mmap, touch, munmap of as much.
//
//   4k, 16k, 64k, 256k   microseconds with runs of that size (64k: at most 0.5x)

#include <memory>

#include "keel/base/check.h"
#include "keel/measure/process.h"
#include "scoreboard/family.h"
#include "support/clock.h"
#include "support/fresh_mmap.h"
#include "support/store_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBytes = std::size_t{1} << 20;
constexpr std::size_t kPages = kBytes / kPageBytes;
constexpr struct {
  const char* figure;
  std::size_t pages;
} kRuns[] = {{"4k", 1}, {"16k", 4}, {"64k", 16}, {"256k", 64}};

void build_and_tear_down(Window& window, const std::vector<Pfn>& frames) {
  const auto start = window.map(frames);
  KEEL_CHECK(start.ok(), "map scattered frames");
  touch_pages(*start, kBytes);
  window.unmap(*start);
  KEEL_CHECK(window.purge().ok(), "purge");
}

template <class Act>
double us_each(int times, const Act& act) {
  act();
  const Stopwatch watch;
  for (int i = 0; i < times; ++i) {
    act();
  }
  return watch.seconds() / times * 1e6;
}

Result<Study> prepare(const Setting& setting) {
  const auto rig =
      std::make_shared<StoreRig>(make_store_rig(2 * kBytes, {.bytes = std::size_t{64} << 20}));
  const int times = setting.smoke ? 2 : 100;
  Study study;
  study.ours = [=]() -> Result<Figures> {
    const ScopedPin pin(0);
    Figures figures;
    for (const auto& run : kRuns) {
      const std::vector<Pfn> frames = scattered_frames(kPages, run.pages);
      figures[run.figure] = us_each(times, [&] { build_and_tear_down(*rig->window, frames); });
    }
    return figures;
  };
  study.peers = {{"fresh mmap", [=]() -> Result<Figures> {
                    const ScopedPin pin(0);
                    const double us = us_each(times, [] { use_fresh_memory(kBytes); });
                    return Figures{{"4k", us}, {"16k", us}, {"64k", us}, {"256k", us}};
                  }}};
  study.rounds = 5;
  return study;
}

const FamilyRegistration kCold{
    {{figure_row("memory.cold.4k", "4k", "us", Goal::kReported, 0,
                 "1 MiB mapped from 4 KiB runs, touched and torn down, against fresh memory"),
      figure_row("memory.cold.16k", "16k", "us", Goal::kReported, 0, "the same, 16 KiB runs"),
      figure_row("memory.cold.64k", "64k", "us", Goal::kRatioAtMost, 0.5, "the same, 64 KiB runs"),
      figure_row("memory.cold.256k", "256k", "us", Goal::kReported, 0, "the same, 256 KiB runs")},
     prepare}};

}  // namespace
}  // namespace keel::bench
