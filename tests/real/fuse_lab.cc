#include "fuse_lab.h"

#include <filesystem>

using namespace keel;

namespace keel_test {

// A moment and an image of it are files.
FuseLab::FuseLab() : scratch_(memory_root(3 * kLargeLog)) {
  why_ = why_no_direct_io(scratch_.path());  // images are judged beside faultfs
  if (why_.empty()) {
    disk_ = FaultFs::start(scratch_, why_);
  }
  ledger_ = std::make_unique<LedgerFile>(scratch_ / "ledger");
}

Result<LogInfo> FuseLab::make_log(std::uint64_t bytes) {
  disk_->clear();
  (void)disk_->tell("snapshots 0 0");
  std::filesystem::remove(*disk_ / "log");
  ledger_->begin_life(0, {}, {});
  return create_log(*disk_ / "log", {.size = Bytes(bytes)});
}

WriterPlan FuseLab::plan(std::uint64_t seed, bool large) const {
  WriterPlan plan = WriterPlan::draw(seed);
  plan.log = *disk_ / "log";
  plan.ledger = ledger_->path();
  plan.transactions = (large ? 60 : 240) / plan.threads;
  plan.large = large;
  return plan;
}

}  // namespace keel_test
