// What does it cost to make scattered frames contiguous, by how many runs they come in?
//
// A case maps 256 KiB of frames and unmaps them; unmapping is lazy and the window is small, so that
// the purges which unmapping causes fall in the clock in their true share (purges_per_map). Run
// lengths of 1 page (every frame on its own), 16 (64 KiB) and 64 (one run). mmap_memfd maps the
// same file pages with one mmap and unmaps them with one munmap: what a single run costs without
// keel.

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <memory>
#include <vector>

#include "keel/base/check.h"
#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMapPages = 64;
constexpr std::size_t kStoreBytes = std::size_t{4} << 20;
constexpr std::size_t kWindowBytes = std::size_t{64} << 20;

std::unique_ptr<FrameStore> make_store() {
  auto store = FrameStore::create({.capacity_bytes = kStoreBytes, .chunk_bytes = kStoreBytes});
  KEEL_CHECK(store.ok() && (*store)->grow().ok(), "make the bench's frame store");
  return std::move(*store);
}

// kMapPages frames in runs of `run_pages`, no two runs neighbours.
std::vector<Pfn> frames_in_runs(std::size_t run_pages) {
  std::vector<Pfn> frames;
  for (std::size_t run = 0; frames.size() < kMapPages; ++run) {
    for (std::size_t page = 0; page < run_pages; ++page) {
      frames.emplace_back(run * (run_pages + 1) + page);
    }
  }
  return frames;
}

void map_unmap(benchmark::State& state) {
  const auto store = make_store();
  auto window = Window::create(*store, {.bytes = kWindowBytes});
  KEEL_CHECK(window.ok(), "make the bench's window");
  const std::vector<Pfn> frames = frames_in_runs(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    auto address = (*window)->map(frames);
    if (!address) {
      state.SkipWithError(address.error().message().c_str());
      break;
    }
    benchmark::DoNotOptimize(*address);
    (*window)->unmap(*address);
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["purges_per_map"] = benchmark::Counter(
      static_cast<double>((*window)->stats().purges), benchmark::Counter::kAvgIterations);
}

void mmap_memfd(benchmark::State& state) {
  const auto store = make_store();
  for (auto _ : state) {
    void* address = ::mmap(nullptr, kMapPages * kPageBytes, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_POPULATE, store->fd(), 0);
    if (address == MAP_FAILED) {
      state.SkipWithError("mmap failed");
      break;
    }
    benchmark::DoNotOptimize(address);
    ::munmap(address, kMapPages * kPageBytes);
  }
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(map_unmap)->ArgName("run_pages")->Arg(1)->Arg(16)->Arg(64);
BENCHMARK(mmap_memfd);

}  // namespace
}  // namespace keel::bench

BENCHMARK_MAIN();
