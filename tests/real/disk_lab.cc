#include "disk_lab.h"

#include <unistd.h>

#include <filesystem>

#include "campaigns.h"
#include "keel/cil/log_file.h"

using namespace keel;

namespace keel_test {
namespace {

std::string memory_root() { return std::filesystem::exists("/dev/shm") ? "/dev/shm" : ""; }

}  // namespace

DiskLab::DiskLab(const std::string& type, Under under)
    : type_(type), scratch_(memory_root()), memory_(memory_root()) {
  ledger_ = std::make_unique<LedgerFile>(memory_ / "ledger");
  if (!is_root()) {
    why_ = "mounting a file system takes root";
    return;
  }
  if (under == Under::kFaultFs) {
    faults_ = FaultFs::start(scratch_, why_);
    if (faults_ == nullptr) {
      return;
    }
    (void)faults_->tell("target disk");
    file_ = *faults_ / "disk";
  } else {
    file_ = scratch_ / "disk";
  }
  make_sparse(file_, least_bytes(type));
  if (make_file_system(type, file_, why_)) {
    (void)bring_up();
  }
}

DiskLab::~DiskLab() {
  if (faults_ != nullptr) {
    faults_->clear();
    faults_->release();
  }
  (void)take_down();
}

bool DiskLab::take_down() {
  const bool unmounted = mounted_ == nullptr || mounted_->unmount();
  mounted_.reset();
  loop_.reset();
  return unmounted;
}

bool DiskLab::bring_up() {
  loop_ = Loop::attach(file_, why_);
  if (loop_ == nullptr) {
    return false;
  }
  mounted_ = Mounted::mount(loop_->path(), scratch_ / "mounted", type_, "", why_);
  return mounted_ != nullptr;
}

bool DiskLab::make_log(std::uint64_t bytes) {
  std::filesystem::remove(log());
  ledger_->begin_life(0, {}, {});
  return create_log(log(), {.size = Bytes(bytes)}).ok();
}

WriterPlan DiskLab::plan(std::uint64_t seed) const {
  std::uint64_t random = seed;
  WriterPlan plan;
  plan.log = log();
  plan.ledger = ledger_->path();
  plan.seed = seed;
  plan.threads = 1 + static_cast<std::uint32_t>(faultfs::random_step(random) % 4);
  plan.transactions = kLedgerTransactions;
  plan.depth = static_cast<std::uint32_t>(faultfs::random_step(random) % 5);
  plan.uring = faultfs::random_step(random) % 2 == 0;
  plan.force = 1 + static_cast<std::uint32_t>(faultfs::random_step(random) % 6);
  return plan;
}

void DiskLab::judge_life(Tally& tally, const std::string& replay) {
  ++tally.lives;
  tally.judge_life(log(), *ledger_, replay);
}

void on_each_file_system(Tally& tally, const char* campaign, std::uint64_t first,
                         std::uint64_t count, const DiskLabRun& run) {
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
      tally.fail("the log could not be made on " + type, replay_of(campaign, first));
      break;
    }
    for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
      if (seed % 2 == odd) {
        run(lab, seed, type);
      }
    }
  }
  if (tally.tried > 0) {
    tally.skipped.clear();
  }
}

}  // namespace keel_test
