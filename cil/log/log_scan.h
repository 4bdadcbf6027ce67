// LogScan: reads the log from its tail to its end and judges the end.
//
// The judgement (FORMAT.md, "The end of the log"): at the first LSN where no checkpoint proves
// itself, everything below the highest LSN known to be stable is damage; at or above it, a torn
// tail and rot look the same. That LSN is known from the state slots, from the good checkpoints,
// and from any later whole record of this incarnation (a witness): it was built after the writes
// below its stable_lsn were flushed.
//
// I1 Every byte is read from the device once: the search for witnesses goes on where the walk of
//    the chain has read ahead to.
// I2 Nothing beyond half the log from the state's stable LSN on is read, but for the rest of a
//    record that begins before (FORMAT.md, "How far the log reaches").
#pragma once

#include <functional>

#include "keel/base/result.h"
#include "keel/cil/recovery.h"
#include "log/log_file.h"
#include "log/read_ahead.h"

namespace keel {

using ScanProgress = std::function<void(Bytes done, Bytes most)>;

struct ScanResult {
  RecoveryReport report;
  format::CheckpointId last{};  // the last good checkpoint, which the next one must name
  Bytes hashed{};               // to prove records, or in vain
};

// How far from the newest state's stable_lsn on records may begin, bytes.
[[nodiscard]] inline Bytes reach_of(const Geometry& geometry) {
  return Bytes(round_down(geometry.data_bytes / 2, geometry.block_bytes));
}

// `progress` as in ScanOptions. With `reading.past_bad_blocks` a block that cannot be read is
// damage, as of a log that is salvaged. Errors: kIo, kDamaged (a short file), kNoMemory, and what
// the handler returns.
[[nodiscard]] Result<ScanResult> scan(const LogFile& file, const RecoveryHandler& handler,
                                      const ScanProgress& progress,
                                      const ReadAheadOptions& reading = {});

}  // namespace keel
