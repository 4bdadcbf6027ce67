#include "crash_lab.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "crash_judge.h"
#include "crash_life.h"
#include "crash_record.h"
#include "crash_recovery.h"
#include "crash_run.h"
#include "crash_versions.h"
#include "keel/base/os.h"
#include "probe.h"

using namespace keel;

namespace keel_test {
namespace crash_lab {
namespace {

std::unique_ptr<SimDisk> make_disk(const CrashPlan& plan, std::uint64_t seed) {
  return plan.make_disk ? plan.make_disk(seed)
                        : std::make_unique<SimDisk>(SimDiskOptions{.seed = seed});
}

Beginning beginning_after(const LifeRecord& parent, const Moment& moment,
                          const Recovered& recovered) {
  Beginning child;
  child.sequence = recovered.report.last_sequence.value();
  child.logged = recovered.versions;
  child.erased = recovered.erased;
  for (std::size_t id = 0; id < kCrashObjects; ++id) {
    child.base[id] = parent.expected(id, child.sequence);
    // What went home while the snapshot was taken did so before it if the log has it no more.
    child.home[id] = recovered.in_log(id) ? moment.home_before[id] : child.base[id];
  }
  return child;
}

// A life, its crashes, and the lives that begin at some of them.
void live_and_crash(Run& run, std::uint32_t depth, std::uint64_t seed, SimDisk& disk,
                    const Beginning& beginning) {
  LifeRecord record(run, depth, seed, disk, beginning);
  live(run, record, disk);
  Judge judge(run, record);
  std::uint64_t random = seed ^ 0xabcdef;
  judge.crash_at_all_moments(random);
  if (depth + 1 >= run.plan.depth) {
    return;
  }
  for (std::uint32_t child = 0; child < run.plan.children; ++child) {
    const std::uint64_t crash_seed = sim_random(random);
    const Moment& moment = record.moments()[sim_random(random) % record.moments().size()];
    const Recovered recovered = judge.recover_one(moment, crash_seed, SimFate::kGarbage);
    const std::unique_ptr<SimDisk> after = make_disk(run.plan, crash_seed);
    const ScopedOs scope(*after);
    boot(*after, moment, crash_seed, SimFate::kGarbage);
    live_and_crash(run, depth + 1, crash_seed, *after, beginning_after(record, moment, recovered));
  }
}

}  // namespace
}  // namespace crash_lab

CrashTally run_crash_plan(const CrashPlan& plan) {
  using namespace crash_lab;
  const std::unique_ptr<SimDisk> disk = make_disk(plan, plan.seed);
  const ScopedOs scope(*disk);
  if (plan.beginning != nullptr) {
    disk->boot_with(*plan.beginning, [](const SimSector&) { return SimFate::kKeep; });
  } else {
    REQUIRE(create_log(kLogPath, {.size = Bytes(plan.log_bytes)}).ok());
  }
  Run run{.plan = plan, .last_version = plan.large_objects ? kLargeVersions : 0};
  live_and_crash(run, 0, plan.seed, *disk, {});
  return run.tally;
}

}  // namespace keel_test
