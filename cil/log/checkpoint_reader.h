// CheckpointReader: reads one checkpoint at an LSN and proves it, or says why it is none.
//
// I1 Nothing is believed before its hash and bounds are checked; no length read from disk decides
//    an allocation beyond max_checkpoint_bytes.
// I2 The result is whole or nothing.
// I3 Nothing that `position` does not allow is read, and reading goes forward: what stands before a
//    checkpoint is given up when it is read.
// I4 Memory: the chunks that hold the checkpoint and those read ahead, copies of at most its size
//    and 4 MiB (CheckpointItems), and 32 bytes a region and 24 an item; so about two max_checkpoint
//    and the chunks ahead.
//
// Threads: all calls from one. The file's state is read by make() alone, so that a journal may
// write it meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "keel/base/result.h"
#include "keel/cil/recovery.h"
#include "log/checkpoint_items.h"
#include "log/log_file.h"
#include "log/read_ahead.h"

namespace keel {

class Hasher;

// What a checkpoint must be to follow the one before it.
struct ChainPosition {
  Lsn lsn{};
  format::CheckpointId predecessor{};
  std::uint64_t most_bytes = 0;   // from here to where it must have ended
  Lsn records_below{UINT64_MAX};  // where each of its records must begin
};

struct ReadOutcome {
  bool proven = false;
  bool beyond_end = false;  // not proven: it is longer than position.most_bytes
  const char* reason = "";  // static storage, if not proven
  format::CheckpointId id{};
};

class CheckpointReader {
 public:
  // The reason of an outcome that is `beyond_end`.
  static constexpr char kBeyondEnd[] = "a checkpoint that ends beyond where it may";

  // Errors: kNoMemory.
  [[nodiscard]] static Result<CheckpointReader> make(const LogFile& file,
                                                     const ReadAheadOptions& options = {});

  // What is read next stands in [from, limit): it may be read ahead.
  void read_ahead(Lsn from, Lsn limit);

  // Reads the checkpoint at `position`; if proven, checkpoint() holds it until the next call.
  // Errors: kIo, kDamaged (a short file), kNoMemory: the outcome is unknown.
  [[nodiscard]] Result<ReadOutcome> read(const ChainPosition& position);

  [[nodiscard]] const RecoveredCheckpoint& checkpoint() const { return checkpoint_; }

  // The header at `lsn` if its fields agree with each other and with the place; its hash is not
  // checked. Errors: kIo, kDamaged, kNoMemory.
  [[nodiscard]] Result<std::optional<format::RecordHeader>> read_header(Lsn lsn);
  // Whether the record at `lsn`, whose header that is, has the right hash. Errors: likewise.
  [[nodiscard]] Result<bool> record_is_whole(Lsn lsn, const format::RecordHeader& header);
  [[nodiscard]] std::uint64_t bytes_of(const format::RecordHeader& header) const;

  [[nodiscard]] Bytes bytes_read() const { return ahead_->bytes_read(); }
  [[nodiscard]] Bytes bytes_hashed() const { return bytes_hashed_; }
  // Of all buffers that it holds.
  [[nodiscard]] Bytes buffer_bytes() const {
    return ahead_->buffer_bytes() + items_.buffer_bytes();
  }

 private:
  CheckpointReader(const LogFile& file, std::unique_ptr<ReadAhead> ahead)
      : superblock_(file.superblock()),
        incarnation_(file.state().incarnation),
        incarnation_start_(file.state().incarnation_start_lsn),
        ahead_(std::move(ahead)),
        items_(superblock_.block_bytes) {}

  [[nodiscard]] Result<format::RecordHeader> header_at(Lsn lsn);
  template <class Use>
  [[nodiscard]] Status each_piece(Lsn lsn, std::uint64_t bytes, Use&& use);
  [[nodiscard]] const char* check_header(const format::RecordHeader& header, Lsn lsn) const;
  [[nodiscard]] const char* check_chain(const format::RecordHeader& header,
                                        const ChainPosition& position) const;
  [[nodiscard]] const char* check_place(const format::RecordHeader& header, Lsn lsn,
                                        std::uint32_t index, const format::RecordHeader& first,
                                        const ChainPosition& position) const;
  [[nodiscard]] Result<const char*> read_records(const ChainPosition& position,
                                                 format::RecordHeader& first);
  [[nodiscard]] Result<const char*> prove_record(Lsn lsn, const format::RecordHeader& header,
                                                 Hasher& record_hashes);
  [[nodiscard]] Status collect(Lsn lsn, const format::RecordHeader& header);
  void describe(const format::RecordHeader& first);

  format::Superblock superblock_;
  std::uint64_t incarnation_;
  std::uint64_t incarnation_start_;
  std::unique_ptr<ReadAhead> ahead_;
  Bytes bytes_hashed_{};
  CheckpointItems items_;
  RecoveredCheckpoint checkpoint_;
};

}  // namespace keel
