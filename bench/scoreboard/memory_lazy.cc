// memory.lazy.*: what does it save to take mappings away late and many at once?
//
// 16 scattered pages are mapped and unmapped, again and again, while a second thread runs (so that
// taking a mapping away must interrupt it). Lazy: as it comes, purges where the window makes them.
// Eager: a purge after every unmap.
//
//   time   microseconds a pair (at most 0.8x)
//   calls  system calls of purges a pair (at most 1/50)
//   slice  CPU time of a map() that had to purge, 99.9 % of them; of the dearest map() if none had
//          (at most 1 ms)

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "keel/base/check.h"
#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "scoreboard/family.h"
#include "support/clock.h"
#include "support/store_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kPages = 16;

class SecondThread {
 public:
  SecondThread()
      : thread_([this] {
          (void)pin_to_cpu(1);
          while (!stop_.load(std::memory_order_relaxed)) {
          }
        }) {}
  ~SecondThread() {
    stop_ = true;
    thread_.join();
  }
  SecondThread(const SecondThread&) = delete;
  SecondThread& operator=(const SecondThread&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

struct Slices {
  std::vector<std::uint64_t> purging_ns;
  std::uint64_t dearest_ns = 0;
};

void map_pair(Window& window, const std::vector<Pfn>& frames) {
  const auto start = window.map(frames);
  KEEL_CHECK(start.ok(), "map scattered frames");
  window.unmap(*start);
}

// An untimed pass: asking before and after each map() would be in the time.
double slice_us(Window& window, const std::vector<Pfn>& frames, int pairs) {
  Slices slices;
  for (int i = 0; i < pairs; ++i) {
    const std::uint64_t calls = window.stats().purge_calls;
    const std::uint64_t start_ns = thread_cpu_ns();
    map_pair(window, frames);
    const std::uint64_t ns = thread_cpu_ns() - start_ns;
    slices.dearest_ns = std::max(slices.dearest_ns, ns);
    if (window.stats().purge_calls != calls) {
      slices.purging_ns.push_back(ns);
    }
  }
  auto& purging = slices.purging_ns;
  if (purging.empty()) {
    return static_cast<double>(slices.dearest_ns) / 1000;
  }
  std::sort(purging.begin(), purging.end());
  return static_cast<double>(purging[(purging.size() - 1) * 999 / 1000]) / 1000;
}

Result<Figures> measure_pairs(const StoreRig& rig, int pairs, bool eager) {
  const ScopedPin pin(0);
  const SecondThread second;
  const std::vector<Pfn> frames = scattered_frames(kPages, 1);
  Window& window = *rig.window;
  const std::uint64_t calls = window.stats().purge_calls;
  const Stopwatch watch;
  for (int i = 0; i < pairs; ++i) {
    map_pair(window, frames);
    if (eager) {
      KEEL_CHECK(window.purge().ok(), "purge");
    }
  }
  Figures figures{{"time", watch.seconds() / pairs * 1e6},
                  {"calls", static_cast<double>(window.stats().purge_calls - calls) / pairs}};
  if (!eager) {
    figures["slice"] = slice_us(window, frames, pairs);
  }
  return figures;
}

Result<Study> prepare(const Setting& setting) {
  const auto make = [] {
    return std::make_shared<StoreRig>(
        make_store_rig(std::size_t{4} << 20, {.bytes = std::size_t{1} << 30}));
  };
  const int pairs = setting.smoke ? 200 : 4'000;
  Study study;
  study.ours = [rig = make(), pairs] { return measure_pairs(*rig, pairs, false); };
  study.peers = {{"eager", [rig = make(), pairs] { return measure_pairs(*rig, pairs, true); }}};
  study.rounds = 3;
  return study;
}

const FamilyRegistration kLazy{
    {{figure_row("memory.lazy.time", "time", "us", Goal::kRatioAtMost, 0.8,
                 "map + unmap of 16 scattered pages beside a second thread, against a purge each"),
      figure_row("memory.lazy.calls", "calls", "/op", Goal::kRatioAtMost, 1.0 / 50,
                 "system calls of purges a pair"),
      figure_row("memory.lazy.slice", "slice", "us", Goal::kOursAtMost, 1000,
                 "CPU time of the calls that purge, 99.9 %")},
     prepare}};

}  // namespace
}  // namespace keel::bench
