// Specimens: logs made once, of which every checkpoint is known, and the judgement of what a reader
// makes of one that was damaged.
//
// The judge runs the reader that open() and scan_log() run, on a log in flat memory (ImageOs), and
// compares every byte that it delivers. Whatever was done to the log, what is delivered must be the
// first so many checkpoints, exactly, and nothing may be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "keel/base/result.h"
#include "keel/cil/recovery.h"
#include "log/read_ahead.h"
#include "probe.h"
#include "support/image_os.h"

namespace keel_test {

enum class LogEnding : std::uint8_t {
  kClosed,   // in order
  kKilled,   // right after the last force
  kCovered,  // killed after it had rested: the state slots vouch for all of it
};

struct SpecimenPlan {
  LogEnding ending = LogEnding::kClosed;
  // Checkpoints until the log has so many bytes from its tail to its end.
  std::uint64_t live_bytes = 0;
  // LSN at which the tail stands at least: so much was logged and let go before.
  std::uint64_t skip_bytes = 0;
  keel::Bytes file_bytes = keel::kMinLogBytes;
  bool small_only = false;  // checkpoints of one record, one block each, but for the very last
};

struct LogSpecimen {
  keel::SimContent image;
  LogEnding ending = LogEnding::kClosed;
  Found checkpoints;                  // from the tail on
  std::vector<std::uint64_t> starts;  // LSNs of theirs, then the end

  [[nodiscard]] std::uint64_t data_bytes() const { return image.size() - 4 * kBlock; }
  // Offset in the file of the byte at `lsn`.
  [[nodiscard]] std::size_t offset_of(std::uint64_t lsn) const {
    return 2 * kBlock + lsn % data_bytes();
  }
  // The checkpoint that the byte of the file belongs to; checkpoints.size(): none.
  [[nodiscard]] std::size_t checkpoint_at(std::size_t offset) const;
  // The byte belongs to what is kept twice: a superblock or a state slot.
  [[nodiscard]] bool is_kept_twice(std::size_t offset) const;
  // How many checkpoints something beside themselves vouches for.
  [[nodiscard]] std::size_t vouched() const {
    return checkpoints.size() - (ending == LogEnding::kKilled ? 1 : 0);
  }

  static constexpr std::size_t kBlock = 4096;
};

[[nodiscard]] LogSpecimen make_specimen(const SpecimenPlan& plan);

struct Judgement {
  bool ok = false;  // there is a report
  keel::Error error{};
  keel::RecoveryReport report{};
  std::size_t delivered = 0;  // checkpoints, all of them right
  std::string fault;          // something that must not be, whatever the log is
};

// Small reads into buffers that the ImageOs keeps.
inline constexpr keel::ReadAheadOptions kQuickReading{keel::SpareMemory::kReadBytes, 0, 0};

// The Os must be in force.
[[nodiscard]] Judgement judge(const ImageOs& os, const LogSpecimen& specimen,
                              const keel::ReadAheadOptions& reading = kQuickReading);

// What is wrong with the verdict on a log of which the checkpoints from `damaged` on (index; as
// many as there are: none) do not prove themselves, and those behind it do; empty: nothing.
[[nodiscard]] std::string fault_of(const Judgement& judgement, const LogSpecimen& specimen,
                                   std::size_t damaged);

}  // namespace keel_test
