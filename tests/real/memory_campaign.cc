// A control group at its limit of memory, whose processes the kernel kills.
#include <csignal>

#include "campaigns.h"
#include "control_group.h"
#include "environment.h"
#include "faultfs/store.h"
#include "keel/cil/log_file.h"
#include "writer.h"

using namespace keel;

namespace keel_test {

using faultfs::random_step;

Tally run_memory(std::uint64_t first, std::uint64_t count) {
  Tally tally("memory");
  std::string why;
  const auto group = ControlGroup::make(ControlGroup::Of::kMemory, why);
  if (group == nullptr) {
    tally.miss("memory", why);
    return tally;
  }
  const Scratch disk;
  const Scratch memory(memory_root());
  LedgerFile ledger(memory / "ledger");
  const std::string log = disk / "log";
  if (!tally.log_made(create_log(log, {.size = kMinLogBytes}), replay_of("memory", first))) {
    return tally;
  }
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    const std::string replay = replay_of("memory", seed);
    std::uint64_t random = seed * 40503;
    const std::uint64_t mib = 24 + random_step(random) % 64;
    if (!group->limit_memory(mib << 20U)) {
      tally.miss("memory", "the limit of a control group cannot be set");
      return tally;
    }
    WriterPlan plan = WriterPlan::draw(random);
    plan.log = log;
    plan.ledger = ledger.path();
    plan.transactions = 400;
    // Some stay below the limit, though close to it; most do not.
    plan.hungry_mib = static_cast<std::uint32_t>(random_step(random) % 4 == 0 ? 4 : 96);
    // Joined before it begins, by itself.
    Helper writer(
        plan.words(), -1, true,
        {"sh", "-c", "echo $$ >" + group->path() + "/cgroup.procs && exec \"$0\" \"$@\""});
    const int code = writer.wait();
    ++tally.lives;
    tally.failed_writers += code == 128 + SIGKILL ? 1 : 0;
    if (code != 128 + SIGKILL && code != kWriterDone && code != kWriterNotOpened &&
        code != kWriterFailed) {
      tally.fail(
          "the writer ended with " + std::to_string(code) + " at " + std::to_string(mib) + " MiB",
          replay);
      break;
    }
    tally.judge_life(log, ledger, code != kWriterDone, replay);
  }
  tally.demand_met(replay_of("memory", first));
  return tally;
}

}  // namespace keel_test
