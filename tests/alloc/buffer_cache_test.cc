// BufferCache: budgets, the way between CPUs, and drains.
#include "buffer_cache.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "cache_board.h"
#include "cpu_pin.h"
#include "support/skip_case.h"

using namespace keel;
using keel_test::CacheBoard;
using keel_test::Pinned;

namespace {

constexpr Pages kMuch{1U << 20};  // live memory that allows the largest budgets
constexpr unsigned kBuffers = 6000;

// Buffers of CacheBoard's class number `index`.
std::vector<std::uint32_t> buffers_of(unsigned index, unsigned count) {
  std::vector<std::uint32_t> all;
  for (unsigned i = 0; i < count; ++i) {
    all.push_back(static_cast<std::uint32_t>(index + i * CacheBoard::kClasses.size()));
  }
  return all;
}

struct Fixture {
  Fixture() {
    REQUIRE(cache.open().ok());
    cache.set_budget(kMuch);
  }
  void put_all(const std::vector<std::uint32_t>& buffers) {
    for (const std::uint32_t buffer : buffers) {
      board.put(cache, buffer);
    }
  }
  CacheBoard board{kBuffers};
  PoolCounters counters;
  BufferCache cache{board, counters};
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "an idle buffer comes back to who wants its class next") {
  const Pinned here;
  put_all({0, 6, 1});
  CHECK(board.take(cache, CacheBoard::class_of(6)) == 6);
  CHECK(board.take(cache, CacheBoard::class_of(0)) == 0);
  CHECK(board.take(cache, CacheBoard::class_of(0)) == CpuStacks::kNone);
  CHECK(board.take(cache, CacheBoard::class_of(1)) == 1);
  const CacheStats stats = cache.stats();
  CHECK(stats.hits + stats.refills >= 3);
  CHECK(stats.hits + stats.refills <= 5);  // A restarted sequence counts twice.
  CHECK(stats.puts >= 3);
  CHECK(stats.puts <= 5);
  CHECK(stats.misses == 1);
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "without a budget nothing is kept") {
  cache.set_budget(Pages(0));
  put_all(buffers_of(0, 100));
  CHECK(cache.idle_pages() == Pages(0));
  CHECK(board.take_evicted().size() == 100);
  CHECK(cache.stats().evictions == 100);
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "what is freed on one CPU is had on another") {
  const auto cpus = keel_test::allowed_cpus();
  if (cpus.size() < 2) {
    keel_test::skip_case("takes two CPUs");
    return;
  }
  const Pinned back_at_the_end;
  constexpr unsigned kCount = 80;  // more than a CPU keeps
  keel_test::pin_to(cpus[0]);
  put_all(buffers_of(0, kCount));
  CHECK(board.take_evicted().empty());
  CHECK(cache.stats().in_depot >= Pages(kCount - CpuStacks::kDepth));
  const auto in_depot = static_cast<unsigned>(cache.stats().in_depot.value());
  keel_test::pin_to(cpus[1]);
  unsigned got = 0;
  while (board.take(cache, CacheBoard::kClasses[0]) != CpuStacks::kNone) {
    ++got;
  }
  CHECK(got == in_depot);
  CHECK(cache.stats().refills < in_depot);  // in batches
  keel_test::pin_to(cpus[0]);
  while (board.take(cache, CacheBoard::kClasses[0]) != CpuStacks::kNone) {
    ++got;
  }
  CHECK(got == kCount);
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "the depot stays within its budget, and gives the oldest away") {
  const Pinned here;
  cache.set_budget(Pages(1));  // the least: 4 MiB in the depot
  constexpr Pages kDepotBudget{1024};
  for (unsigned index = 0; index < CacheBoard::kClasses.size(); ++index) {
    for (const std::uint32_t buffer : buffers_of(index, 300)) {
      board.put(cache, buffer);
      REQUIRE(cache.depot_pages() <= kDepotBudget);
    }
  }
  CHECK(!board.take_evicted().empty());
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "the depot may hold more when no more can be populated") {
  const Pinned here;
  constexpr Pages kPopulated{65'536};
  cache.set_budget(kPopulated, true);
  Pages most{0};
  for (unsigned index = 0; index < CacheBoard::kClasses.size(); ++index) {
    for (const std::uint32_t buffer : buffers_of(index, 300)) {
      board.put(cache, buffer);
      REQUIRE(cache.depot_pages() <= Pages(4096));
      most = std::max(most, cache.depot_pages());
    }
  }
  CHECK(most > Pages(1024));  // the most otherwise
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "the CPUs' stacks together stay within their budget") {
  cache.set_budget(Pages(1));  // the least: 6 MiB over all CPUs
  const Pages most{6 * 256};
  for (const unsigned cpu : keel_test::allowed_cpus()) {
    const Pinned here(cpu);
    for (unsigned index = 0; index < CacheBoard::kClasses.size(); ++index) {
      const auto buffers = buffers_of(index, 900);
      for (unsigned i = cpu % 2; i < buffers.size(); i += 2) {
        board.put(cache, buffers[i]);
        REQUIRE(cache.stats().in_cpus <= most);
      }
    }
  }
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "a drain gives all away once, and takes the room back") {
  for (unsigned index = 0; index < CacheBoard::kClasses.size(); ++index) {
    put_all(buffers_of(index, 20));
  }
  const Pages idle = cache.idle_pages();
  board.evicted_pages = 0;
  (void)board.take_evicted();
  CHECK(cache.drain() == idle);
  CHECK(board.evicted_pages == idle.value());
  CHECK(cache.idle_pages() == Pages(0));
  for (unsigned cpu = 0; cpu < cache.stacks().cpus(); ++cpu) {
    for (unsigned c = 0; c < kSizeClasses; ++c) {
      REQUIRE(cache.stacks().limit(cpu, c) == 0);
    }
  }
  auto evicted = board.take_evicted();
  std::sort(evicted.begin(), evicted.end());
  CHECK(std::adjacent_find(evicted.begin(), evicted.end()) == evicted.end());
  CHECK(cache.drain() == Pages(0));
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "a drained cache grants room again, no less than before") {
  const Pinned here;
  unsigned limit_before = 0;
  for (int round = 0; round < 50; ++round) {
    put_all(buffers_of(1, 60));
    const unsigned limit = cache.stacks().limit(here.cpu(), CacheBoard::kClasses[1]);
    CHECK((round == 0 || limit == limit_before));
    limit_before = limit;
    cache.drain();
    (void)board.take_evicted();
  }
  CHECK(limit_before != 0);
}

TEST_CASE_FIXTURE(Fixture, "only what nobody used since the last time is drained as idle") {
  const Pinned here;
  put_all(buffers_of(0, 10));
  put_all(buffers_of(1, 10));
  const Pages unused{10 * pages_of_class(CacheBoard::kClasses[0])};
  const Pages all = cache.idle_pages();
  REQUIRE(all > unused);
  // The second class is used all the time, in the depot and in the CPU's stack.
  Pages drained{};
  for (int round = 0; round < 3; ++round) {
    std::vector<std::uint32_t> taken;
    for (std::uint32_t buffer;
         (buffer = board.take(cache, CacheBoard::kClasses[1])) != CpuStacks::kNone;) {
      taken.push_back(buffer);
    }
    CHECK(!taken.empty());
    put_all(taken);
    drained += cache.drain_idle();
  }
  CHECK(drained == unused);
  CHECK(cache.idle_pages() == all - unused);
  (void)cache.drain_idle();
  (void)cache.drain_idle();
  CHECK(cache.idle_pages() == Pages(0));
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture, "shrinking gives what is wanted, from the depot before the CPUs") {
  const Pinned here;
  put_all(buffers_of(0, 80));
  const CacheStats before = cache.stats();
  REQUIRE(before.in_depot > Pages(0));
  CHECK(cache.shrink(Pages(1)) >= Pages(1));
  CHECK(cache.stats().in_cpus == before.in_cpus);
  CHECK(cache.depot_pages() < before.in_depot);
  CHECK(cache.shrink(kMuch) == before.in_cpus);
  CHECK(cache.idle_pages() == Pages(0));
  CHECK(cache.shrink(Pages(1)) == Pages(0));
  board.audit(cache);
}

TEST_CASE_FIXTURE(Fixture,
                  "what a refill took and does not need it tells of, once it lies there again") {
  const Pinned here;
  put_all(buffers_of(0, 80));
  while (cache.stats().refills == 0) {
    REQUIRE(board.take(cache, CacheBoard::kClasses[0]) != CpuStacks::kNone);
  }
  CHECK(board.returned == 1);
  // Of a class whose buffers are looked at: the only one, of two, and one that is too small.
  const unsigned large = CacheBoard::kClasses[4];
  put_all({4});
  CHECK(board.take(cache, large) == 4);
  CHECK(board.returned == 1);
  put_all({4, 10});
  CHECK(board.take(cache, large) == 10);
  CHECK(board.returned == 2);
  CHECK(cache.refill(Pages(pages_of_class(large) + 1)) == CpuStacks::kNone);
  CHECK(board.returned == 3);
  board.audit(cache);
}

namespace {

class NoEvictor final : public Evictor {
 public:
  void evict(std::span<const Pfn>) override {}
  void note_returned() override {}
  [[nodiscard]] Tier tier_of(Pfn) const override { return Tier::kContiguous; }
  [[nodiscard]] Pages pages_of(Pfn) const override { return Pages(1); }
};

// Pages that the limits of this CPU allow.
std::uint64_t granted(const BufferCache& cache, unsigned cpu) {
  std::uint64_t pages = 0;
  for (unsigned c = 0; c < kSizeClasses; ++c) {
    pages += std::uint64_t{cache.stacks().limit(cpu, c)} * pages_of_class(c);
  }
  return pages;
}

}  // namespace

TEST_CASE("classes that are used in turn share a CPU's room and never get more together") {
  const Pinned here;
  NoEvictor nobody;
  PoolCounters counters;
  BufferCache cache(nobody, counters);
  REQUIRE(cache.open().ok());
  cache.set_budget(Pages(1));
  const unsigned cpus = cache.stacks().cpus();
  const std::uint64_t most = std::min(6U * 256, cpus * 3U * 256) / cpus;
  for (int round = 0; round < 3; ++round) {
    for (unsigned c = 0; c < 32; ++c) {  // Larger ones may have no room for one at all.
      for (int i = 0; i < 8; ++i) {
        if (!cache.push(c, 1)) {
          cache.overflow(c, 1);
        }
        REQUIRE(granted(cache, here.cpu()) <= most);
      }
      while (cache.pop(c) != CpuStacks::kNone) {
      }
      // All other classes are empty, so that this one got room.
      REQUIRE((cache.stacks().limit(here.cpu(), c) > 0 || pages_of_class(c) > most));
    }
  }
}
