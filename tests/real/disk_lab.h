// DiskLab: a real file system with a log and a ledger on it, life after life, for campaigns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "environment.h"
#include "fault_fs.h"
#include "keel/cil/log_file.h"
#include "support/loop_device.h"
#include "tally.h"
#include "writer_plan.h"

namespace keel_test {

class DiskLab {
 public:
  enum class Under : std::uint8_t { kFile, kFaultFs };

  // On a loop device over a file, or over one of faultfs. ready() tells whether it is there.
  DiskLab(const std::string& type, Under under);
  ~DiskLab();
  DiskLab(const DiskLab&) = delete;
  DiskLab& operator=(const DiskLab&) = delete;
  [[nodiscard]] bool ready() const { return mounted_ != nullptr; }
  [[nodiscard]] const std::string& why() const { return why_; }

  [[nodiscard]] FaultFs* faults() { return faults_.get(); }
  [[nodiscard]] Mounted& mounted() { return *mounted_; }
  [[nodiscard]] LoopDevice& loop() { return *loop_; }
  [[nodiscard]] LedgerFile& ledger() { return *ledger_; }
  // What is under the device.
  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] std::string log() const { return *mounted_ / "log"; }

  // Both: detached, and there again.
  bool take_down();
  bool bring_up();
  [[nodiscard]] keel::Result<keel::LogInfo> make_log(std::uint64_t bytes);
  [[nodiscard]] WriterPlan plan(std::uint64_t seed) const;
  // Judges the log; the next life begins with what it found.
  void judge_life(Tally& tally, bool met, const std::string& replay);

 private:
  bool make_files();  // the disk's and the ledger's

  const std::string type_;
  std::optional<Scratch> scratch_;  // always there
  std::string why_;
  std::string file_;
  std::unique_ptr<LedgerFile> ledger_;
  std::unique_ptr<FaultFs> faults_;
  std::unique_ptr<LoopDevice> loop_;
  std::unique_ptr<Mounted> mounted_;
};

using DiskLabRun = std::function<void(DiskLab&, std::uint64_t seed, const std::string& type)>;

// Runs every seed until one fails: odd ones on XFS, even ones on ext4, each with one log for the
// whole slice. A file system that cannot be had is missing.
void on_each_file_system(Tally& tally, DiskLab::Under under, std::uint64_t log_bytes,
                         std::uint64_t first, std::uint64_t count, const DiskLabRun& run);

}  // namespace keel_test
