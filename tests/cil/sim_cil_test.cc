// Whose turn the context lock is, on simulated threads.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>

#include "cil.h"
#include "keel/base/thread.h"
#include "support/lock_counts.h"
#include "support/sim_scheduler.h"
#include "support/test_seed.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kHoldNs = 1'000'000;

// As a commit or a switch of contexts, for as long as either takes.
void hold_shared(SimScheduler& scheduler, Cil& cil) {
  CilPart& part = cil.lock_shared();
  scheduler.sleep(ThreadPoint::kSleep, kHoldNs);
  cil.unlock_shared(part);
}

void hold_exclusive(SimScheduler& scheduler, Cil& cil) {
  cil.lock_exclusive();
  scheduler.sleep(ThreadPoint::kSleep, kHoldNs);
  cil.unlock_exclusive();
}

}  // namespace

TEST_CASE("a switch of contexts waits for commits under way, and for none after them") {
  const std::uint64_t first = test_seed("sim cil turn", 1);
  for (std::uint64_t seed = first; seed < first + test_rounds(20, 3); ++seed) {
    CAPTURE(seed);
    LockCounts scheduler({.seed = seed, .switch_one_in = 500, .spurious_one_in = 0});
    Cil cil(Sequence(1), 1);
    std::uint64_t commits = 0;
    const auto commit = [&] {
      for (int i = 0; i < 40; ++i) {
        hold_shared(scheduler, cil);
        ++commits;
      }
    };
    std::array<Thread, 2> threads{Thread("commits", commit), Thread("commits too", commit)};
    scheduler.sleep(ThreadPoint::kSleep, 5 * kHoldNs + kHoldNs / 2);
    const std::uint64_t before = commits;
    hold_exclusive(scheduler, cil);
    CHECK(commits - before <= threads.size());
    for (Thread& thread : threads) {
      thread.join();
    }
    scheduler.rank = LockRank::kJournalSwitchTurn;
    scheduler.count = 0;
    hold_shared(scheduler, cil);
    CHECK(scheduler.count == 0);  // Only who comes while somebody switches waits for that.
  }
}

TEST_CASE("a commit waits for one switch of contexts, though another follows at once") {
  const std::uint64_t first = test_seed("sim cil turn", 1);
  for (std::uint64_t seed = first; seed < first + test_rounds(20, 3); ++seed) {
    CAPTURE(seed);
    SimScheduler scheduler({.seed = seed, .switch_one_in = 500, .spurious_one_in = 0});
    Cil cil(Sequence(1), 1);
    std::uint64_t switches = 0;
    Thread closer("switches", [&] {
      for (int i = 0; i < 40; ++i) {
        hold_exclusive(scheduler, cil);
        ++switches;
      }
    });
    scheduler.sleep(ThreadPoint::kSleep, 5 * kHoldNs + kHoldNs / 2);
    const std::uint64_t before = switches;
    hold_shared(scheduler, cil);
    CHECK(switches - before <= 2);
    closer.join();
  }
}

#endif
