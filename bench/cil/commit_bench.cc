// What does one commit cost in memory, and where does a second thread bring it?
//
//   commit_fresh      first commit of an object in its checkpoint: the log vector is allocated.
//                     When a thread has used up its objects it forces and releases them, outside
//                     the clock.
//   commit_relogged   the object is in the checkpoint already: its vector is written again.
//   commit_64k_forced nothing outside the clock: 24 MiB of 64 KiB objects committed one by one,
//                     then forced, round and round. `make profile` records this one.
//
// Every commit is a transaction of one object, begin() to commit(). Threads use objects of their
// own. With two threads a force of one goes on beside the commits of the other.

#include <algorithm>

#include "support/micro.h"

namespace keel::bench {
namespace {

// Below the push threshold of the rig's log (16 MiB), so that no push is asked for.
constexpr std::size_t kSetBytes = std::size_t{8} << 20;
constexpr std::size_t kMostObjects = 8192;

JournalRig* g_rig = nullptr;

std::size_t objects_of(std::size_t object_bytes) {
  return std::min(kSetBytes / object_bytes, kMostObjects);
}

void make_rig(const benchmark::State& state) {
  const auto object_bytes = static_cast<std::size_t>(state.range(0));
  g_rig = &micro_rig({.objects = objects_of(object_bytes), .object_bytes = object_bytes});
}

// The objects of one thread.
struct Share {
  std::size_t first;
  std::size_t count;
};

Share share_of(const benchmark::State& state) {
  const auto threads = static_cast<std::size_t>(state.threads());
  const std::size_t count = g_rig->object_count() / threads;
  return {static_cast<std::size_t>(state.thread_index()) * count, count};
}

void finish(benchmark::State& state, const Share& share) {
  stop_on(state, g_rig->settle(share.first, share.count));
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void commit_fresh(benchmark::State& state) {
  const Share share = share_of(state);
  std::size_t used = 0;
  for (auto _ : state) {
    if (used == share.count) {
      state.PauseTiming();
      if (stop_on(state, g_rig->settle(share.first, share.count))) {
        break;
      }
      used = 0;
      state.ResumeTiming();
    }
    if (stop_on(state, g_rig->commit(share.first + used++))) {
      break;
    }
  }
  finish(state, share);
}

void commit_relogged(benchmark::State& state) {
  const Share share = share_of(state);
  // The second round gives each object its standby vector.
  for (int round = 0; round < 2; ++round) {
    if (stop_on(state, g_rig->commit_each(share.first, share.count))) {
      return;
    }
  }
  std::size_t next = 0;
  for (auto _ : state) {
    if (stop_on(state, g_rig->commit(share.first + next))) {
      break;
    }
    next = next + 1 == share.count ? 0 : next + 1;
  }
  finish(state, share);
}

void commit_64k_forced(benchmark::State& state) {
  constexpr std::size_t kObjectBytes = std::size_t{64} << 10;
  constexpr std::size_t kObjects = 384;
  JournalRig& rig = micro_rig(
      {.log = Bytes(std::uint64_t{512} << 20), .objects = kObjects, .object_bytes = kObjectBytes});
  for (auto _ : state) {
    if (stop_on(state, rig.commit_each(0, kObjects)) || stop_on(state, rig.settle(0, kObjects))) {
      break;
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kObjects));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kObjects * kObjectBytes));
}

BENCHMARK(commit_fresh)
    ->Setup(make_rig)
    ->ArgName("bytes")
    ->Arg(256)
    ->Arg(4096)
    ->Arg(65536)
    ->Threads(1)
    ->Threads(2)
    ->UseRealTime();
BENCHMARK(commit_relogged)
    ->Setup(make_rig)
    ->ArgName("bytes")
    ->Arg(256)
    ->Arg(4096)
    ->Arg(65536)
    ->Threads(1)
    ->Threads(2)
    ->UseRealTime();
BENCHMARK(commit_64k_forced)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) { return keel::bench::micro_main(argc, argv); }
