// FuseLab: faultfs with a log and a ledger, used again by every seed of a campaign.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fault_fs.h"
#include "keel/cil/log_file.h"
#include "writer_plan.h"

namespace keel_test {

class FuseLab {
 public:
  static constexpr std::uint64_t kSmallLog = keel::kMinLogBytes.value();
  static constexpr std::uint64_t kLargeLog = std::uint64_t{16} << 20U;

  FuseLab();
  // nullptr, and why(), where it cannot be had.
  [[nodiscard]] FaultFs* disk() { return disk_.get(); }
  [[nodiscard]] const std::string& why() const { return why_; }
  [[nodiscard]] LedgerFile& ledger() { return *ledger_; }
  // Of a file beside, not on faultfs.
  [[nodiscard]] std::string path(const char* name) const { return scratch_ / name; }

  // An empty log.
  [[nodiscard]] keel::Result<keel::LogInfo> make_log(std::uint64_t bytes);
  [[nodiscard]] WriterPlan plan(std::uint64_t seed, bool large) const;

 private:
  Scratch scratch_;
  std::string why_;
  std::unique_ptr<LedgerFile> ledger_;
  std::unique_ptr<FaultFs> disk_;
};

}  // namespace keel_test
