// Batch: neighbouring records of a checkpoint on their way to the disk, and the thread that writes
// one while the next is built and hashed.
//
// A checkpoint of one batch is written by the push thread itself: handing it over would only add
// two wake-ups to every small force.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <thread>

#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "log/aligned_buffer.h"
#include "log/log_file.h"

namespace keel {

struct Batch {
  AlignedBuffer staging;  // headers and packed bytes
  AlignedBuffer list;     // of parts
  Lsn lsn{};
  std::uint64_t bytes = 0;
  std::size_t staging_used = 0;
  int part_count = 0;

  // Errors: kNoMemory.
  [[nodiscard]] static Result<Batch> make(Pool& pool);
  [[nodiscard]] struct iovec* parts() const { return reinterpret_cast<struct iovec*>(list.data()); }
  // True if the next record might not fit, or the batch has `enough_bytes`.
  [[nodiscard]] bool is_full(std::uint64_t enough_bytes) const;
  // Empties it; the next record goes to `at`.
  void restart(Lsn at);
};

// Writes what the batch holds; where it crosses the end of the data area, in two halves. Counts the
// system calls.
[[nodiscard]] Status write_batch(LogFile& file, Batch& batch, std::uint64_t& writes);

class BatchThread {
 public:
  BatchThread() = default;
  // Waits for the batch under way.
  ~BatchThread();
  BatchThread(const BatchThread&) = delete;
  BatchThread& operator=(const BatchThread&) = delete;

  // Errors: kSystem.
  [[nodiscard]] Status start();
  // Hands a batch over; it stays untouched until wait_for() it. Batches are written in the order in
  // which they come; the next one may come while one is under way, so that the disk never idles.
  void submit(LogFile& file, Batch& batch) KEEL_EXCLUDES(mutex_);
  // Waits until the batch is not under way. Errors: the first of any batch.
  [[nodiscard]] Status wait_for(const Batch& batch) KEEL_EXCLUDES(mutex_);
  // Waits for all batches, and adds their system calls to `writes`.
  [[nodiscard]] Status finish(std::uint64_t& writes) KEEL_EXCLUDES(mutex_);

 private:
  void loop() KEEL_EXCLUDES(mutex_);

  Mutex mutex_{LockRank::kJournalBatch};
  CondVar submitted_;
  CondVar written_;
  LogFile* file_ KEEL_GUARDED_BY(mutex_) = nullptr;
  std::array<Batch*, 2> queue_ KEEL_GUARDED_BY(mutex_){};  // the first is under way
  Status status_ KEEL_GUARDED_BY(mutex_){};                // the first that failed
  std::uint64_t writes_ KEEL_GUARDED_BY(mutex_) = 0;
  bool stopping_ KEEL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace keel
