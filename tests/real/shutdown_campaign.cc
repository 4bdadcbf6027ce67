// A file system that is shut down under the writer, as if the machine had crashed.
#include <unistd.h>

#include "campaigns.h"
#include "disk_lab.h"
#include "keel/cil/log_file.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;

void shut_down_once(DiskLab& lab, Tally& tally, std::uint64_t seed, const std::string& type) {
  std::uint64_t random = seed * 2246822519U;
  const std::string replay = replay_of("shutdown", seed);
  Helper writer(lab.plan(random_step(random)).words());
  while (lab.ledger()->opened == 0 && writer.poll() < 0) {
    (void)::usleep(50);
  }
  (void)::usleep(static_cast<useconds_t>(random_step(random) % 4000));
  const bool flush_log = random_step(random) % 2 == 0;
  if (!lab.mounted().shut_down(flush_log)) {
    tally.skipped = type + " cannot be shut down here";
    return;
  }
  const int code = writer.wait();
  tally.failed_writers += code == kWriterFailed ? 1 : 0;
  if (code != kWriterFailed && code != kWriterDone && code != kWriterNotOpened) {
    tally.fail("the writer ended with " + std::to_string(code) + " on " + type, replay);
    return;
  }
  if (!lab.take_down() || !lab.bring_up()) {
    tally.fail(type + " could not be mounted again: " + lab.why(), replay);
    return;
  }
  lab.judge_life(tally, replay);
}

}  // namespace

// Odd seeds: XFS, even ones: ext4, each with one log for the whole slice.
Tally run_shutdown(std::uint64_t first, std::uint64_t count) {
  Tally tally("shutdown");
  for (const std::uint64_t odd : {std::uint64_t{0}, std::uint64_t{1}}) {
    const std::string type = odd == 1 ? "xfs" : "ext4";
    if (count == 1 && first % 2 != odd) {
      continue;
    }
    DiskLab lab(type, DiskLab::Under::kFile);
    if (!lab.ready()) {
      tally.skipped = lab.why();
      continue;
    }
    if (!lab.make_log(kMinLogBytes.value())) {
      tally.fail("the log could not be made on " + type, replay_of("shutdown", first));
      break;
    }
    for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
      if (seed % 2 == odd) {
        shut_down_once(lab, tally, seed, type);
      }
    }
  }
  if (tally.tried > 0) {
    tally.skipped.clear();
  }
  return tally;
}

}  // namespace keel_test
