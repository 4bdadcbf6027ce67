// Two threads that free one buffer at the same time: both may be taken at their word, and so the
// buffer lies in two CPUs' caches; yet nobody gets what another one has, if both frees have ended
// before anybody is given it.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "cpu_pin.h"
#include "keel/base/check.h"
#include "pool_support.h"
#include "support/skip_case.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;
using namespace keel_test;

namespace {

// Counted, as the two threads report at once.
std::atomic<std::uint64_t> g_double_frees{0};
void count(const BugReport& report) { g_double_frees += report.bug == Bug::kDoubleFree ? 1 : 0; }

// Each step of a round is a number that grows by one, or by one for each thread, each round.
struct Steps {
  std::atomic<std::uint64_t> ready{0};      // to free: of both
  std::atomic<std::uint64_t> freed{0};      // of both
  std::atomic<std::uint64_t> allocated{0};  // by the first
  std::atomic<std::uint64_t> answered{0};   // by the second
  std::atomic<std::uint64_t> compared{0};   // by the first
};

void wait_for(const std::atomic<std::uint64_t>& step, std::uint64_t wanted) {
  for (int spins = 0; step.load() < wanted; ++spins) {
    if (spins > 10'000) std::this_thread::yield();
  }
}

// What is tested takes nanoseconds; a cache line's way from CPU to CPU, some ten times as long.
void meet_and_free(Pool& pool, Steps& steps, std::uint64_t round, const std::atomic<void*>& shared,
                   std::uint64_t pause) {
  ++steps.ready;
  wait_for(steps.ready, 2 * (round + 1));
  for (; pause > 0; --pause) {
    (void)steps.ready.load();
  }
  pool.kvfree(shared);
  ++steps.freed;
  wait_for(steps.freed, 2 * (round + 1));
}

}  // namespace

TEST_CASE("a buffer that two threads free at one time is never had by two owners") {
  const auto cpus = allowed_cpus();
  if (cpus.size() < 2) {
    skip_case("needs two CPUs");
    return;
  }
  const auto pool = make_pool({.capacity_bytes = 4 * kMiB, .window_bytes = 16 * kMiB});
  const BugHandler before = set_bug_handler(count);
  g_double_frees = 0;
  const std::uint64_t rounds = test_rounds(20'000, 2'000);
  Steps steps;
  std::atomic<void*> shared{nullptr};
  std::atomic<void*> answer{nullptr};
  std::thread second([&] {
    pin_to(cpus[1]);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      meet_and_free(*pool, steps, round, shared, round / 64 % 64);
      wait_for(steps.allocated, round + 1);
      answer = pool->kvmalloc(kPage);
      ++steps.answered;
      wait_for(steps.compared, round + 1);
      pool->kvfree(answer);
    }
  });
  std::uint64_t had_by_two = 0;
  {
    const Pinned here(cpus[0]);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      shared = pool->kvmalloc(kPage);
      meet_and_free(*pool, steps, round, shared, round % 64);
      void* mine = pool->kvmalloc(kPage);
      ++steps.allocated;
      wait_for(steps.answered, round + 1);
      had_by_two += mine == answer.load() ? 1U : 0U;
      ++steps.compared;
      pool->kvfree(mine);
    }
  }
  second.join();
  set_bug_handler(before);
  CHECK(had_by_two == 0);
  CHECK(g_double_frees > 0);
  say_tried("double_free_race", rounds);
}
