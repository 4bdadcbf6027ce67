// Real ext4 and XFS on a loop device on faultfs: their disk loses power, fails a write, or fails a
// flush once and says yes ever after.
#include "campaigns.h"
#include "disk_lab.h"
#include "interruption.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

struct DiskFault {
  const char* rule;  // with %: the k-th
  bool failure;      // the writer must meet it
  bool cached;       // the log is written through the page cache, always
};

// The power cut; a write that fails; one flush that fails and loses what it was for ("fsyncgate").
// Of a write that fails the writer need not be told: it may be the file system's own. What the page
// cache could not write the kernel tells once, to whoever flushes next: so these have seeds of
// their own.
constexpr DiskFault kDiskFaults[] = {
    {"change % 999999999 off 0", true, false},
    {"write % 999999999 eio 0", true, true},
    {"write % % eio 0", false, false},
    {"fsync % % eiodrop 0", true, false},
    {"fsync % 999999999 eio 0", true, false},
    {"write % 999999999 eio 0", true, false},
    {"write % % eio 0", false, true},
    {"fsync % % eiodrop 0", true, true},
    {"", false, false},
};
// What a file system can be asked to survive of its own.
constexpr Cut kFairCuts[] = {Cut::kNone, Cut::kAll, Cut::kWrites, Cut::kTorn4096};

std::string with(const char* rule, std::uint64_t k) {
  std::string text(rule);
  for (auto at = text.find('%'); at != std::string::npos; at = text.find('%')) {
    text.replace(at, 1, std::to_string(k));
  }
  return text;
}

void fail_disk_once(DiskLab& lab, Tally& tally, std::uint64_t seed, const std::string& type) {
  std::uint64_t random = seed * 3266489917U;
  const std::string replay = replay_of("loop", seed);
  const DiskFault& fault = kDiskFaults[seed / 4 % std::size(kDiskFaults)];
  const std::string rule = with(fault.rule, 1 + random_step(random) % 40);
  WriterPlan plan = lab.plan(random_step(random));
  // Large ones take several writes and then a flush, small ones write through.
  plan.large = seed / 2 % 2 == 1;
  plan.transactions = plan.large ? 30 : 100;
  plan.buffered |= fault.cached;
  lab.faults()->clear();
  if (!rule.empty()) {
    lab.faults()->rule(rule);
  }
  const Interruption interruption = Interruption::draw(seed, random, plan);
  Helper writer(plan.words());
  if (rule.empty()) {
    interruption.wait(*lab.ledger(), writer);
    lab.faults()->power_off();
  }
  const int code = writer.wait();
  const std::string what = " (" + type + ", " + (rule.empty() ? "power off" : rule) +
                           (plan.buffered ? ", page cache)" : ")");
  tally.failed_writers += code == kWriterFailed || code == kWriterNotOpened ? 1 : 0;
  if (code != kWriterFailed && code != kWriterDone && code != kWriterNotOpened) {
    tally.fail("the writer ended with " + std::to_string(code) + what, replay);
    return;
  }
  const bool met = rule.empty() ? code != kWriterDone : lab.faults()->counts().faults > 0;
  if (met && fault.failure && code == kWriterDone) {
    tally.fail("nobody was told" + what, replay);
    return;
  }
  if (!met && code != kWriterDone) {
    tally.fail("a failure without a fault" + what, replay);
    return;
  }
  lab.faults()->power_off();
  (void)lab.take_down();
  lab.faults()->cut(kFairCuts[random_step(random) % std::size(kFairCuts)], random_step(random));
  if (!lab.bring_up()) {
    tally.fail("could not be mounted again: " + lab.why() + what, replay);
    return;
  }
  lab.judge_life(tally, met, replay);
  if (!tally.ok()) {
    tally.failures.back() += what;
  }
}

}  // namespace

Tally run_loop(std::uint64_t first, std::uint64_t count) {
  Tally tally("loop");
  on_each_file_system(tally, DiskLab::Under::kFaultFs, std::uint64_t{16} << 20U, first, count,
                      [&](DiskLab& lab, std::uint64_t seed, const std::string& type) {
                        fail_disk_once(lab, tally, seed, type);
                      });
  tally.demand_met(replay_of("loop", first));
  return tally;
}

}  // namespace keel_test
