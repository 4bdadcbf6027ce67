// Journals in simulated worlds: sim_world.h says what a world is and what is checked in it.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "sim_world.h"
#include "support/run_again.h"
#include "support/test_seed.h"
#include "support/tried.h"

#if defined(KEEL_DEBUG)

using namespace keel_test;

namespace {

void add(SimWorldResult& sum, const SimWorldResult& one) {
  sum.tally.states += one.tally.states;
  sum.tally.same += one.tally.same;
  sum.tally.lives += one.tally.lives;
  sum.tally.moments += one.tally.moments;
  sum.tally.torn += one.tally.torn;
  sum.tally.failed += one.tally.failed;
  sum.tally.rot += one.tally.rot;
  sum.tally.rot_detected += one.tally.rot_detected;
  sum.tally.rot_harmless += one.tally.rot_harmless;
  sum.tally.rot_cut += one.tally.rot_cut;
  sum.steps += one.steps;
  sum.switches += one.switches;
  sum.tried += one.tried;
}

// A failed state ends the test, so the three zeros are what has been reached when this is printed.
void print(const SimWorldResult& sum, std::uint64_t worlds, double seconds) {
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  const CrashTally& tally = sum.tally;
  (void)std::printf(
      "%llu worlds, %llu lives (%llu ended by a fault), %llu moments, %llu steps, "
      "%llu switches, %llu waits tried; %llu states torn; rot: %llu, %llu detected, %llu harmless, "
      "%llu cut\n",
      number(worlds), number(tally.lives), number(tally.failed), number(tally.moments),
      number(sum.steps), number(sum.switches), number(sum.tried), number(tally.torn),
      number(tally.rot), number(tally.rot_detected), number(tally.rot_harmless),
      number(tally.rot_cut));
  say_tried("sim", tally.states,
            " same=" + std::to_string(tally.same) + " lost=0 partial=0 holes=0 seconds=" +
                std::to_string(seconds) + " rot=" + std::to_string(tally.rot) +
                " rot_reported=" + std::to_string(tally.rot_detected));
}

}  // namespace

TEST_CASE("simulated worlds lose nothing forced, tear nothing, show no hole and never hang") {
  const bool one = std::getenv("KEEL_TEST_SEED") != nullptr;
  const std::uint64_t first = test_seed("sim world", setting("KEEL_SIM_SEED_FIRST", 1));
  const std::uint64_t worlds = one ? 1 : setting("KEEL_SIM_SEEDS", test_rounds(4, 1));
  const auto begun = std::chrono::steady_clock::now();
  SimWorldResult sum;
  for (std::uint64_t seed = first; seed < first + worlds; ++seed) {
    if (one) {
      (void)std::printf("%s\n", describe_sim_world(seed).c_str());
    }
    add(sum, run_sim_world(seed));
  }
  print(sum, worlds,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  CHECK(sum.tally.states > 0);
  // About one in four of such states has rot where something vouches.
  constexpr std::uint64_t kManyRotten = 1'000;
  CHECK((sum.tally.rot < kManyRotten || sum.tally.rot_detected > 0));
}

namespace {

// What is the same of two runs of a world.
std::string account_of(const SimWorldResult& result) {
  return "world: steps=" + std::to_string(result.steps) +
         " states=" + std::to_string(result.tally.states) +
         " hash=" + std::to_string(result.trace_hash) + "\n";
}

// Set: the world of that seed is run alone, in a process of its own, and its account printed.
constexpr const char* kAlone = "KEEL_SIM_ALONE";

}  // namespace

TEST_CASE("a simulated world run again is the same to the last event, in any process") {
  if (std::getenv(kAlone) != nullptr) {
    (void)std::printf("%s", account_of(run_sim_world(setting(kAlone, 1))).c_str());
    return;
  }
  const std::uint64_t first = test_seed("sim world twice", setting("KEEL_SIM_SEED_FIRST", 1008));
  const std::uint64_t worlds = setting("KEEL_SIM_SEEDS", test_rounds(4, 1));
  std::uint64_t same = 0;
  for (std::uint64_t seed = first; seed < first + worlds; ++seed) {
    const std::string once = account_of(run_sim_world(seed));
    const std::string again = account_of(run_sim_world(seed));
    // Memory lies elsewhere there, and nothing has run before.
    const std::string said =
        run_with(kAlone, std::to_string(seed), "a simulated world run again*").errors;
    const std::size_t at = said.find("world: ");
    const std::string alone =
        at == std::string::npos ? said : said.substr(at, said.find('\n', at) + 1 - at);
    CAPTURE(describe_sim_world(seed));
    CHECK(once == again);
    CHECK(once == alone);
    same += once == again && once == alone ? 1U : 0U;
  }
  say_tried("sim_again", worlds, " failures=" + std::to_string(worlds - same));
}

#endif
