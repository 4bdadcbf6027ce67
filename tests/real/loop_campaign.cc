// Real ext4 and XFS on a loop device on faultfs: their disk loses power, fails a write, or fails a
// flush once and says yes ever after.
#include <unistd.h>

#include "campaigns.h"
#include "disk_lab.h"
#include "keel/cil/log_file.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

struct DiskFault {
  const char* rule;  // with %: the k-th
  bool must_fail;    // the writer is told
};

// The power cut; a write that fails; one flush that fails and loses what it was for ("fsyncgate").
constexpr DiskFault kDiskFaults[] = {
    {"change % 999999999 off 0", true}, {"write % % eio 0", false},
    {"fsync % % eiodrop 0", false},     {"fsync % 999999999 eio 0", false},
    {"write % 999999999 eio 0", false}, {"", false},
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
  lab.faults()->clear();
  if (!rule.empty()) {
    lab.faults()->rule(rule);
  }
  Helper writer(plan.words());
  if (rule.empty()) {
    while (lab.ledger()->opened == 0 && writer.poll() < 0) {
      (void)::usleep(50);
    }
    (void)::usleep(static_cast<useconds_t>(random_step(random) % 8000));
    lab.faults()->power_off();
  }
  const int code = writer.wait();
  const std::string what = " (" + type + ", " + (rule.empty() ? "power off" : rule) + ")";
  tally.failed_writers += code == kWriterFailed || code == kWriterNotOpened ? 1 : 0;
  if (code != kWriterFailed && code != kWriterDone && code != kWriterNotOpened) {
    tally.fail("the writer ended with " + std::to_string(code) + what, replay);
    return;
  }
  lab.faults()->power_off();
  (void)lab.take_down();
  lab.faults()->cut(kFairCuts[random_step(random) % std::size(kFairCuts)], random_step(random));
  if (!lab.bring_up()) {
    tally.fail("could not be mounted again: " + lab.why() + what, replay);
    return;
  }
  lab.judge_life(tally, replay);
  if (!tally.ok()) {
    tally.failures.back() += what;
  }
}

}  // namespace

// Odd seeds: XFS, even ones: ext4, each with one log for the whole slice.
Tally run_loop(std::uint64_t first, std::uint64_t count) {
  Tally tally("loop");
  for (const std::uint64_t odd : {std::uint64_t{0}, std::uint64_t{1}}) {
    const std::string type = odd == 1 ? "xfs" : "ext4";
    if (count == 1 && first % 2 != odd) {
      continue;
    }
    DiskLab lab(type, DiskLab::Under::kFaultFs);
    if (!lab.ready()) {
      tally.skipped = lab.why();
      continue;
    }
    if (!lab.make_log(std::uint64_t{16} << 20U)) {
      tally.fail("the log could not be made on " + type, replay_of("loop", first));
      break;
    }
    // So that the directory entry is no matter of the cuts.
    ::sync();
    for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
      if (seed % 2 == odd) {
        fail_disk_once(lab, tally, seed, type);
      }
    }
  }
  if (tally.tried > 0) {
    tally.skipped.clear();
  }
  return tally;
}

}  // namespace keel_test
