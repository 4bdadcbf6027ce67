#include "disk_lab.h"

#include <unistd.h>

#include <filesystem>

#include "campaigns.h"

using namespace keel;

namespace keel_test {

DiskLab::DiskLab(const std::string& type, Under under)
    : type_(type),
      scratch_(std::in_place, memory_root(under == Under::kFile ? least_bytes(type) : 0)) {
  if (!is_root()) {
    why_ = kWhyNoMount;
    return;
  }
  if (under == Under::kFaultFs) {
    faults_ = FaultFs::start(*scratch_, why_, FaultFs::Client::kLoopDevice);
    if (faults_ == nullptr) {
      return;
    }
    (void)faults_->tell("target disk");
    file_ = *faults_ / "disk";
    make_sparse(file_, least_bytes(type));
  } else if (!make_files()) {
    scratch_.emplace();  // others have taken the memory since it was asked for
    if (!make_files()) {
      return;
    }
  }
  ledger_ = std::make_unique<LedgerFile>(*scratch_ / "ledger");
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

bool DiskLab::make_files() {
  file_ = *scratch_ / "disk";
  return make_whole(*scratch_ / "ledger", kLedgerBytes, why_) &&
         make_whole(file_, least_bytes(type_), why_);
}

bool DiskLab::take_down() {
  const bool unmounted = mounted_ == nullptr || mounted_->unmount();
  mounted_.reset();
  loop_.reset();
  return unmounted;
}

bool DiskLab::bring_up() {
  loop_ = LoopDevice::attach(file_, why_);
  if (loop_ == nullptr) {
    return false;
  }
  mounted_ = Mounted::mount(loop_->path(), *scratch_ / "mounted", type_, "", why_);
  return mounted_ != nullptr;
}

Result<LogInfo> DiskLab::make_log(std::uint64_t bytes) {
  std::filesystem::remove(log());
  ledger_->begin_life(0, {}, {});
  auto made = create_log(log(), {.size = Bytes(bytes)});
  // What mkfs and mount have written is no matter of the faults.
  if (made.ok() && !mounted_->sync()) {
    return Error{Errc::kIo, 0, "its file system could not be synced", 0};
  }
  return made;
}

WriterPlan DiskLab::plan(std::uint64_t seed) const {
  WriterPlan plan = WriterPlan::draw(seed);
  plan.log = log();
  plan.ledger = ledger_->path();
  return plan;
}

void DiskLab::judge_life(Tally& tally, bool met, const std::string& replay) {
  ++tally.lives;
  tally.judge_life(log(), *ledger_, met, replay);
}

void on_each_file_system(Tally& tally, DiskLab::Under under, std::uint64_t log_bytes,
                         std::uint64_t first, std::uint64_t count, const DiskLabRun& run) {
  for (const std::uint64_t odd : {std::uint64_t{0}, std::uint64_t{1}}) {
    const std::string type = odd == 1 ? "xfs" : "ext4";
    if (count == 1 && first % 2 != odd) {
      continue;
    }
    DiskLab lab(type, under);
    if (!lab.ready()) {
      tally.miss(type, lab.why());
      continue;
    }
    if (!tally.log_made(lab.make_log(log_bytes), replay_of(tally.property.c_str(), first))) {
      return;
    }
    for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
      if (seed % 2 == odd) {
        run(lab, seed, type);
      }
    }
  }
}

}  // namespace keel_test
