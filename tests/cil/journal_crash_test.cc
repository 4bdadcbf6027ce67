// Power cuts at every I/O: crash_lab.h says what is checked.
#include <doctest/doctest.h>

#include <cstdio>

#include "crash_lab.h"
#include "support/test_seed.h"

using namespace keel_test;

namespace {

void add(CrashTally& sum, const CrashTally& one) {
  sum.states += one.states;
  sum.lives += one.lives;
  sum.moments += one.moments;
  sum.bytes_logged += one.bytes_logged;
  sum.torn += one.torn;
}

void print(const char* what, const CrashTally& tally) {
  (void)std::printf(
      "%s: %llu crash states (%llu torn) of %llu moments in %llu lives, %llu KiB logged\n", what,
      static_cast<unsigned long long>(tally.states), static_cast<unsigned long long>(tally.torn),
      static_cast<unsigned long long>(tally.moments), static_cast<unsigned long long>(tally.lives),
      static_cast<unsigned long long>(tally.bytes_logged / 1024));
}

}  // namespace

TEST_CASE("a power cut at any I/O loses nothing forced, tears no transaction, reorders nothing") {
  const std::uint64_t seed = test_seed("crash", 1);
  CrashTally tally;
  const std::uint64_t rounds = test_rounds(6, 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    add(tally, run_crash_plan({.seed = seed + round}));
  }
  print("crash", tally);
  CHECK(tally.torn > 0);
}

TEST_CASE("the same with several threads committing") {
  const std::uint64_t seed = test_seed("threaded crash", 101);
  CrashTally tally;
  const std::uint64_t rounds = test_rounds(2, 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    add(tally, run_crash_plan({.seed = seed + round, .transactions = 600, .threads = 4}));
  }
  print("threaded crash", tally);
}
