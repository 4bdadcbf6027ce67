// Seeds of a small world that is run again and again on the simulated scheduler: a few in each run
// of the tests, a slice of a campaign (tests/trust) with KEEL_SIM_SEED_FIRST and KEEL_SIM_SEEDS,
// one with KEEL_TEST_SEED.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "support/test_seed.h"
#include "support/tried.h"

namespace keel_test {

// Calls world(seed) for each.
template <class World>
void for_sim_seeds(const char* what, std::uint64_t usual, const World& world) {
  const bool one = std::getenv("KEEL_TEST_SEED") != nullptr;
  const std::uint64_t first = test_seed(what, setting("KEEL_SIM_SEED_FIRST", 1));
  const std::uint64_t count = one ? 1 : setting("KEEL_SIM_SEEDS", test_rounds(usual, 10));
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    world(seed);
  }
  say_tried("sim_items", count);
}

}  // namespace keel_test
