// How long does a durable commit of 256 B take, and how many of them share a write when more
// threads wait? Each thread commits its own object and forces the sequence, in a closed loop.
//
// p50_us and p99_us are over each thread's own commits, averaged over the threads;
// commits_per_write is what group commit gathered.

#include <algorithm>
#include <vector>

#include "support/clock.h"
#include "support/micro.h"

namespace keel::bench {
namespace {

constexpr std::size_t kObjectBytes = 256;
constexpr int kMostThreads = 8;

JournalRig* g_rig = nullptr;

void make_rig(const benchmark::State&) {
  g_rig = &micro_rig({.objects = kMostThreads, .object_bytes = kObjectBytes});
}

double quantile_us(std::vector<double>& seconds, double quantile) {
  if (seconds.empty()) {
    return 0;
  }
  const auto rank = static_cast<std::ptrdiff_t>(quantile * static_cast<double>(seconds.size() - 1));
  std::nth_element(seconds.begin(), seconds.begin() + rank, seconds.end());
  return seconds[static_cast<std::size_t>(rank)] * 1e6;
}

void durable_commit(benchmark::State& state) {
  const auto mine = static_cast<std::size_t>(state.thread_index());
  const std::uint64_t writes_before = g_rig->journal().stats().checkpoints;
  std::vector<double> latencies;
  latencies.reserve(1U << 20);
  for (auto _ : state) {
    const Stopwatch watch;
    const auto sequence = g_rig->commit(mine);
    if (stop_on(state, sequence) || stop_on(state, g_rig->journal().force(*sequence))) {
      break;
    }
    latencies.push_back(watch.seconds());
  }
  if (mine == 0) {
    const std::uint64_t writes = g_rig->journal().stats().checkpoints - writes_before;
    state.counters["commits_per_write"] =
        static_cast<double>(state.iterations() * state.threads()) /
        static_cast<double>(std::max<std::uint64_t>(1, writes));
  }
  stop_on(state, g_rig->settle(mine, 1));
  state.SetItemsProcessed(state.iterations());
  const auto averaged = benchmark::Counter::kAvgThreads;
  state.counters["p50_us"] = benchmark::Counter(quantile_us(latencies, 0.50), averaged);
  state.counters["p99_us"] = benchmark::Counter(quantile_us(latencies, 0.99), averaged);
}

BENCHMARK(durable_commit)
    ->Setup(make_rig)
    ->ThreadRange(1, kMostThreads)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) { return keel::bench::micro_main(argc, argv); }
