// What does a small object cost from kmalloc, beside the allocators that it could be left to?
//
// pair: one object is allocated and freed, again and again. batch: 256 are allocated, then freed in
// the order in which they came, so that caches of a few dozen overflow. Both per thread; real time
// a pair of calls.
//
//   kmalloc        jemalloc's arenas over a source of frames, a tcache per CPU, live marks.
//   je_no_tcache   the same jemalloc without any cache: what the tcache per CPU saves.
//   jemalloc       the same jemalloc as it comes: a cache per thread, no wrong free told.
//   libc_malloc    glibc.

#include <benchmark/benchmark.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "keel/base/check.h"
#include "keel_jemalloc.h"
#include "kmalloc.h"
#include "support/extent_memory.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBatch = 256;

Kmalloc& kmalloc() {
  static keel_test::ExtentMemory memory(Pages(std::uint64_t{1} << 14));
  static const auto made = Kmalloc::create({memory.base(), memory.capacity(), &memory});
  KEEL_CHECK(made.ok(), "make the bench's kmalloc");
  return **made;
}

struct OfKmalloc {
  static void* allocate(std::size_t size) { return kmalloc().allocate(size, 1); }
  static void free(void* object) { (void)kmalloc().free(object); }
};
struct OfJemallocNoTcache {
  static void* allocate(std::size_t size) { return keel_je_mallocx(size, je::kNoTcache); }
  static void free(void* object) { keel_je_dallocx(object, je::kNoTcache); }
};
struct OfJemalloc {
  static void* allocate(std::size_t size) { return keel_je_malloc(size); }
  static void free(void* object) { keel_je_free(object); }
};
struct OfLibc {
  static void* allocate(std::size_t size) { return std::malloc(size); }
  static void free(void* object) { std::free(object); }
};

template <class Of>
void pair(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto _ : state) {
    void* object = Of::allocate(size);
    benchmark::DoNotOptimize(object);
    Of::free(object);
  }
  state.SetItemsProcessed(state.iterations());
}

template <class Of>
void batch(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  std::array<void*, kBatch> objects{};
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(kBatch))) {
    for (void*& object : objects) {
      object = Of::allocate(size);
    }
    benchmark::DoNotOptimize(objects.data());
    for (void* object : objects) {
      Of::free(object);
    }
  }
  state.SetItemsProcessed(state.iterations());
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int size : {64, 500, 3000}) {
    bench->Arg(size);
  }
  bench->Threads(1)->Threads(2)->UseRealTime();
}

BENCHMARK(pair<OfKmalloc>)->Name("pair/kmalloc")->Apply(sizes);
BENCHMARK(pair<OfJemallocNoTcache>)->Name("pair/je_no_tcache")->Apply(sizes);
BENCHMARK(pair<OfJemalloc>)->Name("pair/jemalloc")->Apply(sizes);
BENCHMARK(pair<OfLibc>)->Name("pair/libc_malloc")->Apply(sizes);
BENCHMARK(batch<OfKmalloc>)->Name("batch/kmalloc")->Apply(sizes);
BENCHMARK(batch<OfJemallocNoTcache>)->Name("batch/je_no_tcache")->Apply(sizes);
BENCHMARK(batch<OfJemalloc>)->Name("batch/jemalloc")->Apply(sizes);
BENCHMARK(batch<OfLibc>)->Name("batch/libc_malloc")->Apply(sizes);

}  // namespace
}  // namespace keel::bench

BENCHMARK_MAIN();
