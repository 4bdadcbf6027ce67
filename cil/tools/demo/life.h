// One life of a log: a process ingests into it until it is killed in the middle of that.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "demo/judge.h"
#include "demo/message.h"
#include "demo/plan.h"
#include "keel/base/units.h"

namespace keel::tools {

struct LifeOptions {
  std::string log;
  bool buffered = false;
  std::uint64_t seed = 0;
  std::uint32_t life = 1;
  std::uint32_t threads = 1;
  Bytes budget{};  // of the log, from its start
  int plan_fd = -1;
};

// When to kill, by seed: at a share of what this life may write, perhaps then inside a force, and a
// little later.
struct KillPlan {
  double share = 0.5;
  bool in_force = false;
  std::uint64_t delay_ns = 0;
};
[[nodiscard]] KillPlan make_kill_plan(std::uint64_t seed);

struct LifeResult {
  const char* moment = "";         // what was going on when the signal was sent
  std::uint64_t transactions = 0;  // known to be committed in this life
  std::uint64_t acknowledged = 0;  // of them
  std::uint64_t busy_ns = 0;       // from the open log to the kill
  std::vector<std::uint64_t> force_ns;
  JournalStats journal{};  // as of the last message
  PoolStats pool{};
};

// Adds to `ledger` what was committed and acknowledged. Throws Failure if the process failed or
// ended by itself. `progress(text, share)` is called now and then.
[[nodiscard]] LifeResult live_and_die(const LifeOptions& options, const KillPlan& kill,
                                      Ledger& ledger,
                                      const std::function<void(const char*, double)>& progress);

}  // namespace keel::tools
