// What does a large buffer cost from each tier, beside malloc and mmap?
//
// A case allocates and frees one buffer; with touch:1 it writes one byte in each page between,
// which is where malloc and mmap pay their page faults. The pool is populated.
//
//   kvmalloc_contiguous   a fresh pool: runs of frames, no mapping.
//   kvmalloc_scattered    every other frame is taken, so nothing larger than a page is contiguous:
//                         the vmalloc tier maps single frames, its dearest case. Purges fall in the
//                         clock.
//   libc_malloc, libc_mmap  glibc as it comes: malloc gives large buffers back to the kernel until
//                         its dynamic threshold has grown, mmap always does.

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"

namespace keel::bench {
namespace {

constexpr std::size_t kPoolBytes = std::size_t{32} << 20;

std::unique_ptr<Pool> make_pool() {
  auto pool = Pool::create({.capacity_bytes = kPoolBytes, .initial_bytes = kPoolBytes});
  KEEL_CHECK(pool.ok(), "make the bench's pool");
  return std::move(*pool);
}

// Takes every frame and frees every other one. What stays taken goes with the pool.
void scatter(Pool& pool) {
  std::vector<void*> frames;
  while (void* frame = pool.kvmalloc(kPageBytes, AllocFlags::kNoWait | AllocFlags::kNoWarn)) {
    frames.push_back(frame);
  }
  std::sort(frames.begin(), frames.end());
  for (std::size_t i = 0; i < frames.size(); i += 2) {
    pool.kvfree(frames[i]);
  }
}

void touch(void* buffer, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += kPageBytes) {
    static_cast<volatile std::byte*>(buffer)[at] = std::byte{1};
  }
}

template <class Allocate, class Free>
void measure(benchmark::State& state, const Allocate& allocate, const Free& free) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  for (auto _ : state) {
    void* buffer = allocate(bytes);
    if (buffer == nullptr) {
      state.SkipWithError("no buffer");
      break;
    }
    if (state.range(1) != 0) {
      touch(buffer, bytes);
    }
    benchmark::DoNotOptimize(buffer);
    free(buffer, bytes);
  }
  state.SetItemsProcessed(state.iterations());
}

void measure_pool(benchmark::State& state, Pool& pool) {
  measure(
      state, [&pool](std::size_t bytes) { return pool.kvmalloc(bytes); },
      [&pool](void* buffer, std::size_t) { pool.kvfree(buffer); });
}

void kvmalloc_contiguous(benchmark::State& state) {
  const auto pool = make_pool();
  measure_pool(state, *pool);
  KEEL_CHECK(pool->stats().vmalloc_allocations == 0, "not the contiguous tier");
}

void kvmalloc_scattered(benchmark::State& state) {
  const auto pool = make_pool();
  scatter(*pool);
  const std::uint64_t contiguous_before = pool->stats().contiguous_allocations;
  measure_pool(state, *pool);
  KEEL_CHECK(pool->stats().contiguous_allocations == contiguous_before, "not the vmalloc tier");
}

void libc_malloc(benchmark::State& state) {
  measure(
      state, [](std::size_t bytes) { return std::malloc(bytes); },
      [](void* buffer, std::size_t) { std::free(buffer); });
}

void libc_mmap(benchmark::State& state) {
  measure(
      state,
      [](std::size_t bytes) -> void* {
        void* buffer =
            ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return buffer == MAP_FAILED ? nullptr : buffer;
      },
      [](void* buffer, std::size_t bytes) { ::munmap(buffer, bytes); });
}

void cases(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"bytes", "touch"})->ArgsProduct({{64 << 10, 1 << 20}, {0, 1}});
}

BENCHMARK(kvmalloc_contiguous)->Apply(cases);
BENCHMARK(kvmalloc_scattered)->Apply(cases);
BENCHMARK(libc_malloc)->Apply(cases);
BENCHMARK(libc_mmap)->Apply(cases);

}  // namespace
}  // namespace keel::bench

BENCHMARK_MAIN();
