// A file system that is shut down under the writer, as if the machine had crashed. ext4 and XFS are
// campaigns of their own, so that each is counted.
#include <cerrno>
#include <cstring>

#include "campaigns.h"
#include "disk_lab.h"
#include "interruption.h"
#include "keel/cil/log_file.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;

void shut_down_once(DiskLab& lab, Tally& tally, std::uint64_t seed, const std::string& type,
                    std::uint64_t& closing) {
  std::uint64_t random = seed * 2246822519U;
  const std::string replay = replay_of(tally.property.c_str(), seed);
  WriterPlan plan = lab.plan(random_step(random));
  const bool flush_log = random_step(random) % 2 == 0;
  const Interruption interruption = Interruption::draw(seed, random, plan);
  Helper writer(plan.words());
  interruption.wait(*lab.ledger(), writer);
  closing += was_closing(*lab.ledger()) ? 1U : 0U;
  if (!lab.mounted().shut_down(flush_log)) {
    tally.miss(type, std::string("cannot be shut down: ") + std::strerror(errno));
    return;
  }
  const int code = writer.wait();
  tally.failed_writers += code == kWriterFailed ? 1 : 0;
  // Nothing is wrong until it has its log open.
  if (code != kWriterFailed && code != kWriterDone) {
    tally.fail("the writer ended with " + std::to_string(code) + " on " + type, replay);
    return;
  }
  if (!lab.take_down() || !lab.bring_up()) {
    tally.fail(type + " could not be mounted again: " + lab.why(), replay);
    return;
  }
  lab.judge_life(tally, code == kWriterFailed, replay);
}

// One log for all of its seeds.
Tally run_shutdown(const std::string& type, std::uint64_t first, std::uint64_t count) {
  Tally tally("shutdown-" + type);
  DiskLab lab(type, DiskLab::Under::kFile);
  if (!lab.ready()) {
    tally.miss(type, lab.why());
    return tally;
  }
  if (!tally.log_made(lab.make_log(kMinLogBytes.value()),
                      replay_of(tally.property.c_str(), first))) {
    return tally;
  }
  std::uint64_t closing = 0;  // while the writer was in close()
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    shut_down_once(lab, tally, seed, type, closing);
  }
  tally.demand_met(replay_of(tally.property.c_str(), first));
  tally.note = " closing=" + std::to_string(closing);
  return tally;
}

}  // namespace

Tally run_shutdown_ext4(std::uint64_t first, std::uint64_t count) {
  return run_shutdown("ext4", first, count);
}

Tally run_shutdown_xfs(std::uint64_t first, std::uint64_t count) {
  return run_shutdown("xfs", first, count);
}

}  // namespace keel_test
