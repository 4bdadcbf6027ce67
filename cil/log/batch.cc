#include "log/batch.h"

#include <cstring>
#include <system_error>
#include <utility>

namespace keel {
namespace {

// Room for the packed parts of one batch; a full packed part is 64 KiB.
constexpr std::size_t kStagingBytes = std::size_t{2} << 20;
// Most parts that one record can need: its packed part and one part for each bulk block.
constexpr int kMaxRecordParts =
    1 + static_cast<int>(format::kMaxRecordBulkBytes / format::kMinBlockBytes);
constexpr int kMaxBatchParts = 1024;
// One more: a batch that crosses the end of the data area is split inside one part.
constexpr std::size_t kListBytes = (kMaxBatchParts + 1) * sizeof(struct iovec);

static_assert(kStagingBytes >= format::kMaxPackedPartBytes);
static_assert(kMaxBatchParts >= kMaxRecordParts);

// Makes two parts of the one that reaches over the first `bytes` bytes; returns how many parts lie
// before that point.
int split_parts(struct iovec* parts, int& count, std::uint64_t bytes) {
  int before = 0;
  while (bytes >= parts[before].iov_len) {
    bytes -= parts[before].iov_len;
    ++before;
  }
  if (bytes == 0) {
    return before;
  }
  std::memmove(parts + before + 1, parts + before,
               static_cast<std::size_t>(count - before) * sizeof *parts);
  parts[before].iov_len = bytes;
  parts[before + 1].iov_base = static_cast<std::byte*>(parts[before + 1].iov_base) + bytes;
  parts[before + 1].iov_len -= bytes;
  ++count;
  return before + 1;
}

}  // namespace

Result<Batch> Batch::make(Pool& pool) {
  auto staging = AlignedBuffer::allocate(pool, kStagingBytes, "checkpoint staging");
  auto list = AlignedBuffer::allocate(pool, kListBytes, "checkpoint parts");
  if (!staging || !list) {
    return !staging ? staging.error() : list.error();
  }
  Batch batch;
  batch.staging = std::move(*staging);
  batch.list = std::move(*list);
  return batch;
}

bool Batch::is_full(std::uint64_t enough_bytes) const {
  return part_count + kMaxRecordParts > kMaxBatchParts ||
         staging_used + format::kMaxPackedPartBytes > kStagingBytes || bytes >= enough_bytes;
}

void Batch::restart(Lsn at) {
  lsn = at;
  bytes = 0;
  staging_used = 0;
  part_count = 0;
}

Status write_batch(LogFile& file, Batch& batch, std::uint64_t& writes) {
  const Geometry& geometry = file.geometry();
  struct iovec* parts = batch.parts();
  int count = batch.part_count;
  Lsn lsn = batch.lsn;
  const std::uint64_t to_wrap = geometry.bytes_to_wrap(lsn);
  if (batch.bytes > to_wrap) {
    const int before = split_parts(parts, count, to_wrap);
    ++writes;
    if (auto status = file.device().write(geometry.offset_of(lsn), parts, before); !status) {
      return status;
    }
    parts += before;
    count -= before;
    lsn += Bytes(to_wrap);
  }
  ++writes;
  return file.device().write(geometry.offset_of(lsn), parts, count);
}

Status BatchThread::start() {
  try {
    thread_ = std::thread([this] { loop(); });
  } catch (const std::system_error& error) {
    return Error{Errc::kSystem, error.code().value(), "start the batch thread", 0};
  }
  return {};
}

BatchThread::~BatchThread() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    submitted_.notify_one();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void BatchThread::submit(LogFile& file, Batch& batch) {
  MutexLock lock(mutex_);
  KEEL_CHECK(queue_[1] == nullptr, "three batches under way");
  file_ = &file;
  (queue_[0] == nullptr ? queue_[0] : queue_[1]) = &batch;
  submitted_.notify_one();
}

Status BatchThread::wait_for(const Batch& batch) {
  MutexLock lock(mutex_);
  while (queue_[0] == &batch || queue_[1] == &batch) {
    written_.wait(mutex_);
  }
  return status_;
}

Status BatchThread::finish(std::uint64_t& writes) {
  MutexLock lock(mutex_);
  while (queue_[0] != nullptr) {
    written_.wait(mutex_);
  }
  writes += std::exchange(writes_, 0);
  return status_;
}

void BatchThread::loop() {
  MutexLock lock(mutex_);
  for (;;) {
    while (queue_[0] == nullptr && !stopping_) {
      submitted_.wait(mutex_);
    }
    if (queue_[0] == nullptr) {
      return;
    }
    LogFile& file = *file_;
    Batch& batch = *queue_[0];
    // After a failure nothing more is written: the device has latched it, and says so again.
    mutex_.unlock();
    std::uint64_t writes = 0;
    const Status status = write_batch(file, batch, writes);
    mutex_.lock();
    status_ = status_.ok() ? status : status_;
    writes_ += writes;
    queue_ = {queue_[1], nullptr};
    written_.notify_one();
  }
}

}  // namespace keel
