// SIGKILL of the writer at any moment: the kernel keeps what it had been given.
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "campaigns.h"
#include "environment.h"
#include "faultfs/store.h"
#include "interruption.h"
#include "keel/cil/log_file.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;

// Lives of one log, before it is made anew.
constexpr std::uint64_t kLivesOfLog = 64;

// Every fourth log is so large that CPUs keep credit.
Result<LogInfo> make_log(const std::string& path, std::uint64_t seed, LedgerFile& ledger) {
  std::filesystem::remove(path);
  ledger.begin_life(0, {}, {});
  const bool large = seed / kLivesOfLog % 4 == 3;
  return create_log(path, {.size = large ? Bytes(32U << 20U) : kMinLogBytes});
}

}  // namespace

Tally run_kill(std::uint64_t first, std::uint64_t count) {
  Tally tally("kill");
  const Scratch disk;
  const Scratch memory(memory_root());
  LedgerFile ledger(memory / "ledger");
  std::uint64_t closing = 0;  // that were killed in close()
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    std::uint64_t random = seed * 2654435761U;
    const std::string replay = replay_of("kill", seed);
    const std::string log = disk / "log";
    if ((seed == first || seed % kLivesOfLog == 0) &&
        !tally.log_made(make_log(log, seed, ledger), replay)) {
      break;
    }
    WriterPlan plan = WriterPlan::draw(random);
    plan.log = log;
    plan.ledger = ledger.path();
    // Some die while they open the log.
    const bool early = random_step(random) % 8 == 0;
    const std::uint64_t early_usec = random_step(random) % 10'000;
    const Interruption interruption = Interruption::draw(seed, random, plan);
    Helper writer(plan.words());
    if (early) {
      (void)::usleep(static_cast<useconds_t>(early_usec));
    } else {
      interruption.wait(*ledger, writer);
    }
    writer.signal(SIGKILL);
    const int code = writer.wait();
    ++tally.lives;
    closing += was_closing(*ledger) ? 1U : 0U;
    if (code != 128 + SIGKILL && code != kWriterDone) {
      tally.fail("the writer ended with " + std::to_string(code), replay);
      break;
    }
    tally.judge_life(log, ledger, ledger->done == 0, replay);
  }
  tally.demand_met(replay_of("kill", first));
  tally.note = " closing=" + std::to_string(closing);
  return tally;
}

}  // namespace keel_test
