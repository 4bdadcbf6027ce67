// Simulated worlds: all of a journal's lives, threads, I/O, faults and crashes by one seed.
//
// A seed draws a world: the log's size, the journal's settings, the committers, their objects, what
// the disk is like and what fails on it, and how threads take turns. The world is run whole, by the
// crash lab (crash_lab.h) under a SimScheduler: lives of a journal with power cuts, three deep,
// each moment crashed and recovered, each state checked. A deadlock, a thread that is never woken
// or only by a timeout or a chance, a stall by the journal's own watchdog, a broken KEEL_CHECK: any
// ends the process with the seed. Most worlds have no wakes but real ones, some force nearly
// all, some rest often.
//
//   KEEL_TEST_SEED=n                                  runs one world alone
//   KEEL_SIM_SEED_FIRST=n KEEL_SIM_SEEDS=m            runs a slice of a campaign (tests/trust)
//   KEEL_SIM_STOP=step                                aborts there, with the trace before it
#pragma once

#include <cstdint>
#include <string>

#include "crash_lab.h"

namespace keel_test {

struct SimWorldResult {
  CrashTally tally;
  std::uint64_t trace_hash = 0;
  std::uint64_t steps = 0;
  std::uint64_t switches = 0;
  std::uint64_t tried = 0;  // waits, for lost wakeups
};

// Of `effort` 1 a world checks some hundred states. Fails the running test, or aborts.
[[nodiscard]] SimWorldResult run_sim_world(std::uint64_t seed, unsigned effort = 1);

// A line about the world that a seed draws.
[[nodiscard]] std::string describe_sim_world(std::uint64_t seed);

}  // namespace keel_test
