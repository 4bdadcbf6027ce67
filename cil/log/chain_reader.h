// ChainReader: walks the chain of checkpoints from one to the next, as recovery does over a log at
// rest and a follower does over the log of a live journal.
//
// I1 It stands between two checkpoints; only a proven one moves it on.
// I2 Nothing at or beyond `end` is read: on a live log what stands there may be half written.
//
// What is below a live log's tail may be overwritten while it is read: then nothing is proven there
// (no older lap's record has the LSN, and a torn one not the hash), and the caller, who knows the
// tail, tells that from damage.
//
// Threads: all calls from one; other threads may write the log and its state meanwhile, but for
// make(), which reads the state.
#pragma once

#include "keel/base/result.h"
#include "log/checkpoint_reader.h"

namespace keel {

class ChainReader {
 public:
  // Stands at the recorded tail. `file` outlives it. Errors: kNoMemory.
  [[nodiscard]] static Result<ChainReader> make(const LogFile& file,
                                                const ReadAheadOptions& options = {});

  // Where the next checkpoint begins, and what it must name as its predecessor.
  [[nodiscard]] const ChainPosition& position() const { return position_; }
  // Goes to a position that was had from a ChainReader of this log.
  void seek(const ChainPosition& position) { position_ = position; }
  // No record at or beyond this counts; none is set at first.
  void set_records_below(Lsn lsn) { position_.records_below = lsn; }

  // Reads the next checkpoint if it ends at or below `end`; then checkpoint() is it until the next
  // call, and position() its end. If it is not proven, nothing has changed; `beyond_end` tells one
  // that is longer, or that nothing stands below `end`, from what is no checkpoint at all.
  // Errors: kIo, kDamaged (a short file), kNoMemory.
  [[nodiscard]] Result<ReadOutcome> next(Lsn end);

  [[nodiscard]] const RecoveredCheckpoint& checkpoint() const { return reader_.checkpoint(); }
  // For a search beyond the chain's end, on what is already read.
  [[nodiscard]] CheckpointReader& reader() { return reader_; }

 private:
  ChainReader(const LogFile& file, CheckpointReader reader);

  CheckpointReader reader_;
  ChainPosition position_;
};

}  // namespace keel
