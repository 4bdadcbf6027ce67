// CheckpointWriter: turns a closed checkpoint's log vectors into records and writes them.
//
// I1 From write() to its return there is no call into any allocator: batches and the queue that
//    writes some of them while the next is built are made at open and kept.
// I2 The packed areas go through staging, one copy an item; whole blocks of large regions go to the
//    disk from the log vector itself, so they are copied once, from the object to its vector.
// I3 Records are written in any order and grouping; nothing but the flush after them orders them.
// I4 A checkpoint of one batch is written and made stable in one system call, but where it crosses
//    the end of the data area or the file system does not know RWF_DSYNC.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "log/batch.h"
#include "log/hash.h"
#include "log/log_file.h"
#include "log/write_queue.h"
#include "log_vector.h"

namespace keel {

// A closed checkpoint, its place in the log decided.
struct ClosedCheckpoint {
  LogVector* first = nullptr;      // in commit order; owned until stable
  std::uint64_t packed_bytes = 0;  // lengths of the two streams
  std::uint64_t bulk_blocks = 0;
  std::uint64_t item_count = 0;  // written ones; ordered items are not counted
  format::CheckpointId id{};
  format::CheckpointId predecessor{};
  Lsn tail{};
  Lsn stable{};
};

// Walks the packed stream of a chain of vectors, in pieces of any size.
class PackedStream {
 public:
  explicit PackedStream(const LogVector* first);
  // Writes the next `bytes` bytes of the stream to `place`.
  void take(std::byte* place, std::size_t bytes);

 private:
  void next_vector();

  const LogVector* vector_;
  std::size_t taken_bytes_ = 0;  // of this vector
  const LogVector* ahead_;       // the one whose cache lines are on their way
};

// Walks the bulk stream of a chain of vectors in whole blocks.
class BulkStream {
 public:
  explicit BulkStream(const LogVector* first);
  // Appends parts for the next `blocks` blocks; returns the number of parts.
  int take(std::uint64_t blocks, std::uint32_t block_bytes, struct iovec* parts);

 private:
  void next_region();

  const LogVector* vector_;
  std::optional<LargeRegions> regions_;  // of this vector
  const std::byte* data_ = nullptr;      // what is left of this region
  std::uint64_t left_blocks_ = 0;
};

class CheckpointWriter : public MetadataObject {
 public:
  // `file` outlives the writer. Errors: kNoMemory, those of WriteQueue::make().
  [[nodiscard]] static Result<std::unique_ptr<CheckpointWriter>> make(LogFile& file, IoMode mode,
                                                                      Pool& pool);

  // Writes all records and makes them stable. Threads: one at a time.
  // Errors: kIo and what else the device latched.
  [[nodiscard]] Status write(const ClosedCheckpoint& checkpoint);

  // System calls that wrote, and flushes of their own, so far.
  [[nodiscard]] std::uint64_t writes() const { return writes_ + queue_->system_calls(); }
  [[nodiscard]] IoMode mode() const { return queue_->mode(); }

 private:
  static constexpr unsigned kBatches = 4;

  struct Progress {
    PackedStream packed;
    BulkStream bulk;
    std::uint64_t packed_left;
    std::uint64_t bulk_left;
    Lsn lsn;
    Hasher record_hashes;
  };

  CheckpointWriter(LogFile& file, std::array<Batch, kBatches> batches,
                   std::unique_ptr<WriteQueue> queue)
      : file_(file), batches_(std::move(batches)), queue_(std::move(queue)) {}

  void build_record(const ClosedCheckpoint& checkpoint, std::uint32_t index, std::uint32_t count,
                    Progress& progress);
  [[nodiscard]] Status build_and_write(const ClosedCheckpoint& checkpoint, std::uint32_t count,
                                       Progress& progress);
  [[nodiscard]] Status write_alone();
  [[nodiscard]] Status start_current();
  [[nodiscard]] Status next_batch(Lsn at);
  [[nodiscard]] Batch& current() { return batches_[current_]; }

  LogFile& file_;
  std::array<Batch, kBatches> batches_;
  unsigned current_ = 0;  // being built; the others may be under way
  std::uint64_t writes_ = 0;
  std::unique_ptr<WriteQueue> queue_;  // last: it waits before the batches go
};

}  // namespace keel
