// CheckpointReader: reads one checkpoint at an LSN and proves it, or says why it is none.
//
// I1 Nothing is believed before its hash and bounds are checked; no length read from disk decides
//    an allocation beyond max_checkpoint_bytes.
// I2 The result is whole or nothing.
#pragma once

#include <cstdint>
#include <optional>

#include "keel/base/metadata_allocator.h"
#include "keel/base/result.h"
#include "keel/cil/recovery.h"
#include "log/aligned_buffer.h"
#include "log/log_file.h"

namespace keel {

// What a checkpoint must be to follow the one before it.
struct ChainPosition {
  Lsn lsn{};
  format::CheckpointId predecessor{};
  std::uint64_t most_bytes = 0;  // from here to where the log would bite its tail
};

struct ReadOutcome {
  bool proven = false;
  const char* reason = "";  // static storage, if not proven
  format::CheckpointId id{};
};

class CheckpointReader {
 public:
  // Errors: kNoMemory.
  [[nodiscard]] static Result<CheckpointReader> make(const LogFile& file, Pool& pool);

  // Reads the checkpoint at `position`; if proven, checkpoint() holds it until the next read.
  // Errors: kIo, kNoMemory: the outcome is unknown.
  [[nodiscard]] Result<ReadOutcome> read(const ChainPosition& position);

  [[nodiscard]] const RecoveredCheckpoint& checkpoint() const { return checkpoint_; }

  // The header at `lsn` if a whole, valid record of this log stands there.
  // Errors: kIo.
  [[nodiscard]] Result<std::optional<format::RecordHeader>> read_record(Lsn lsn);

  [[nodiscard]] Bytes bytes_read() const { return bytes_read_; }

 private:
  CheckpointReader(const LogFile& file, Pool& pool, AlignedBuffer window)
      : file_(&file), pool_(&pool), window_(std::move(window)) {}

  [[nodiscard]] Result<const std::byte*> bytes_at(Lsn lsn, std::uint64_t bytes);
  [[nodiscard]] const char* check_header(const format::RecordHeader& header, Lsn lsn) const;
  [[nodiscard]] const char* check_chain(const format::RecordHeader& header,
                                        const ChainPosition& position) const;
  [[nodiscard]] const char* check_place(const format::RecordHeader& header, Lsn lsn,
                                        std::uint32_t index, const format::RecordHeader& first,
                                        const ChainPosition& position) const;
  [[nodiscard]] Result<const char*> read_records(const ChainPosition& position,
                                                 format::RecordHeader& first);
  [[nodiscard]] Status collect(const format::RecordHeader& header, const std::byte* record);
  [[nodiscard]] Status reserve(AlignedBuffer& buffer, std::uint64_t used, std::uint64_t bytes);
  [[nodiscard]] const char* parse(const format::RecordHeader& first);
  [[nodiscard]] const char* walk_items(bool fill);

  const LogFile* file_;
  Pool* pool_;
  AlignedBuffer window_;  // what was read last
  Lsn window_lsn_{};
  std::uint64_t window_valid_ = 0;
  Bytes bytes_read_{};

  AlignedBuffer packed_;  // the streams of the checkpoint being read
  std::uint64_t packed_bytes_ = 0;
  AlignedBuffer bulk_;
  std::uint64_t bulk_bytes_ = 0;
  MetadataVector<RecoveredRegion> regions_;
  MetadataVector<RecoveredItem> items_;
  RecoveredCheckpoint checkpoint_;
};

}  // namespace keel
