// ReadAhead: a log's bytes in LSN order, by large reads that run ahead of whoever uses them.
//
// The bytes come as chunks that lie side by side. A chunk is read by a reading thread, or by its
// user if that comes first: without a thread (none could be started, or there is too little to
// read) all is the same but slower.
//
// I1 Every byte is read from the device once: a chunk stays from its read until release_below() has
//    passed it. But for one that cannot be read: who claimed it may read it again, by blocks.
// I2 Nothing at or beyond the limit is read.
// I3 Chunks held are those from the release point to the one in use and `depth` more; their buffers
//    are made once and used again.
// I4 A chunk is written by the one who claimed it and does not change from then on.
// I5 No thread and no read under way outlives the object or a restart().
//
// Threads: all calls from one. Locks: one leaf mutex, over states of chunks; never held in a read
// or an allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "keel/base/metadata_allocator.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/thread.h"
#include "log/log_file.h"
#include "log/read_buffer.h"

namespace keel {

struct ReadAheadOptions {
  std::size_t chunk_bytes = std::size_t{4} << 20;  // of a read; whole blocks of it, at least one
  std::size_t depth = 4;                           // chunks read ahead of the one in use
  unsigned threads = 2;                            // each has one read in flight; 0: its user reads
  bool past_bad_blocks = false;  // a chunk that cannot be read is read block by block
};

class ReadAhead : public MetadataObject {
 public:
  // Errors: kNoMemory.
  [[nodiscard]] static Result<std::unique_ptr<ReadAhead>> make(const LogFile& file,
                                                               const ReadAheadOptions& options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Forgets all, and begins at `from`. Both are multiples of a block.
  void restart(Lsn from, Lsn limit);
  // Bytes below `limit` may be read too; a lower limit than before changes nothing.
  void extend(Lsn limit);
  // The bytes at `lsn` are there or can be had by going on.
  [[nodiscard]] bool covers(Lsn lsn) const { return lsn >= released_ && lsn <= planned_; }

  // The bytes from `lsn` to the end of its chunk, or to a block that cannot be read, until
  // release_below() passes them. `lsn` is not below what was released, and below the limit.
  // Errors: kIo, kDamaged (short file), kNoMemory.
  [[nodiscard]] Result<std::span<const std::byte>> at(Lsn lsn);
  void release_below(Lsn lsn);

  [[nodiscard]] Bytes bytes_read() const KEEL_EXCLUDES(mutex_);
  // Of all buffers.
  [[nodiscard]] Bytes buffer_bytes() const { return Bytes(chunks_.size() * chunk_bytes_); }

 private:
  enum class State : std::uint8_t { kPlanned, kReading, kReady, kInPart, kFailed };
  struct Chunk : MetadataObject {
    ReadBuffer buffer;
    Lsn start{};
    std::size_t bytes = 0;
    State state = State::kPlanned;  // under mutex_ from the moment that it is planned
    Error error{};
    MetadataVector<std::uint8_t> unreadable;  // by block; kInPart
    Chunk* next = nullptr;
    [[nodiscard]] Lsn end() const { return start + Bytes(bytes); }
  };

  ReadAhead(const LogFile& file, const ReadAheadOptions& options);

  [[nodiscard]] Result<Chunk*> plan_to(Lsn lsn);
  void plan_ahead(const Chunk& used);
  [[nodiscard]] Status plan_one();
  [[nodiscard]] Result<Chunk*> take_buffer();
  void start_threads();
  void work() KEEL_EXCLUDES(mutex_);
  [[nodiscard]] Chunk* first_unclaimed() KEEL_REQUIRES(mutex_);
  void read_claimed(Chunk& chunk) KEEL_REQUIRES(mutex_);
  [[nodiscard]] Bytes read_blocks(Chunk& chunk);
  [[nodiscard]] std::size_t readable_at(const Chunk& chunk, std::size_t skip) const;
  void wait_until_read(Chunk& chunk) KEEL_REQUIRES(mutex_);

  const LogFile& file_;
  const std::size_t chunk_bytes_;
  const std::size_t depth_;
  const bool past_bad_blocks_;
  unsigned threads_wanted_;

  // The user's own.
  Lsn released_{};
  Lsn planned_{};  // end of the newest chunk
  Lsn limit_{};
  MetadataVector<std::unique_ptr<Chunk>> chunks_;
  Chunk* free_ = nullptr;
  Chunk* newest_ = nullptr;
  Chunk* last_used_ = nullptr;  // what at() gave, while it is in the list

  mutable Mutex mutex_{LockRank::kLeaf};
  CondVar planned_more_;  // for the threads
  CondVar read_one_;      // for the user
  Chunk* oldest_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Bytes bytes_read_ KEEL_GUARDED_BY(mutex_){};
  bool failed_ KEEL_GUARDED_BY(mutex_) = false;  // the threads read no further
  bool stopping_ KEEL_GUARDED_BY(mutex_) = false;
  std::vector<Thread> threads_;
};

}  // namespace keel
