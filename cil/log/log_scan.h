// LogScan: reads the log from its tail to its end and judges the end.
//
// The judgement (FORMAT.md, "The end of the log"): at the first LSN where no checkpoint proves
// itself, everything below the highest LSN known to be stable is damage; at or above it, a torn
// tail and rot look the same. That LSN is known from the state slots, from the good checkpoints,
// and from any later whole record of this incarnation (a witness): it was built after the writes
// below were flushed.
#pragma once

#include <functional>

#include "keel/base/result.h"
#include "keel/cil/recovery.h"
#include "log/log_file.h"

namespace keel {

using ScanProgress = std::function<void(Bytes done, Bytes most)>;

struct ScanResult {
  RecoveryReport report;
  format::CheckpointId last{};  // the last good checkpoint, which the next one must name
};

// `progress` as in ScanOptions. Errors: kIo, kNoMemory, and what the handler returns.
[[nodiscard]] Result<ScanResult> scan(const LogFile& file, Pool& pool,
                                      const RecoveryHandler& handler, const ScanProgress& progress);

}  // namespace keel
