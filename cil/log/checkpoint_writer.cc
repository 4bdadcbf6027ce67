#include "log/checkpoint_writer.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace keel {
namespace {

// A checkpoint's first batch is small: nothing is on its way to the disk while it is built.
constexpr std::uint64_t kFirstBatchBytes = std::uint64_t{256} << 10;
constexpr std::uint64_t kBatchBytes = std::uint64_t{1} << 20;

// Of a vector that the walk over the chain comes to soon: its header and where its snapshot begins.
void prefetch_vector(const LogVector* vector) {
  constexpr std::size_t kLines = 4;
  constexpr std::size_t kLineBytes = 64;
  const auto* line = reinterpret_cast<const std::byte*>(vector);
  for (std::size_t i = 0; i < kLines; ++i) {
    __builtin_prefetch(line + i * kLineBytes);
  }
}

}  // namespace

PackedStream::PackedStream(const LogVector* first)
    : vector_(first), ahead_(first != nullptr ? first->next : nullptr) {}

void PackedStream::take(std::byte* place, std::size_t bytes) {
  while (bytes > 0) {
    KEEL_CHECK(vector_ != nullptr, "the packed stream is shorter than accounted", bytes);
    const std::size_t now = std::min(bytes, vector_->packed_bytes - taken_bytes_);
    std::memcpy(place, vector_->packed() + taken_bytes_, now);
    place += now;
    bytes -= now;
    taken_bytes_ += now;
    if (taken_bytes_ == vector_->packed_bytes) {
      next_vector();
    }
  }
}

void PackedStream::next_vector() {
  vector_ = vector_->next;
  taken_bytes_ = 0;
  if (ahead_ != nullptr) {
    ahead_ = ahead_->next;
  }
  if (ahead_ != nullptr) {
    prefetch_vector(ahead_);
  }
}

BulkStream::BulkStream(const LogVector* first) : vector_(first) {
  if (first != nullptr) {
    regions_.emplace(*first);
  }
}

int BulkStream::take(std::uint64_t blocks, std::uint32_t block_bytes, struct iovec* parts) {
  int count = 0;
  while (blocks > 0) {
    if (left_blocks_ == 0) {
      next_region();
      continue;
    }
    const std::uint64_t now = std::min(left_blocks_, blocks);
    parts[count++] = {const_cast<std::byte*>(data_), now * block_bytes};
    data_ += now * block_bytes;
    left_blocks_ -= now;
    blocks -= now;
  }
  return count;
}

void BulkStream::next_region() {
  while (!regions_ || !regions_->next()) {
    KEEL_CHECK(vector_ != nullptr && vector_->next != nullptr,
               "the bulk stream is shorter than accounted");
    vector_ = vector_->next;
    regions_.emplace(*vector_);
  }
  data_ = regions_->data();
  left_blocks_ = regions_->blocks();
}

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::make(LogFile& file, IoMode mode,
                                                                 Pool& pool) {
  std::array<Batch, kBatches> batches;
  std::array<struct iovec, kBatches> staging{};
  for (unsigned i = 0; i < kBatches; ++i) {
    auto batch = Batch::make(pool);
    if (!batch) {
      return batch.error();
    }
    batches[i] = std::move(*batch);
    staging[i] = {batches[i].staging.data(), batches[i].staging.bytes()};
  }
  // Two numbers a batch: one that crosses the end of the data area is two writes.
  auto queue = WriteQueue::make(file.device(), mode, staging, 2 * kBatches);
  if (!queue) {
    return queue.error();
  }
  std::unique_ptr<CheckpointWriter> writer(
      new (std::nothrow) CheckpointWriter(file, std::move(batches), std::move(*queue)));
  if (writer == nullptr) {
    return Error{Errc::kNoMemory, 0, "make a checkpoint writer", 0};
  }
  return writer;
}

Status CheckpointWriter::write(const ClosedCheckpoint& checkpoint) {
  const std::uint32_t block = file_.geometry().block_bytes;
  const auto shape =
      format::checkpoint_shape(checkpoint.packed_bytes, checkpoint.bulk_blocks, block);
  KEEL_CHECK(shape.bytes == checkpoint.id.bytes, "extent and streams disagree", shape.bytes,
             checkpoint.id.bytes);
  Progress progress{PackedStream(checkpoint.first), BulkStream(checkpoint.first),
                    checkpoint.packed_bytes,        checkpoint.bulk_blocks,
                    Lsn(checkpoint.id.start_lsn),   Hasher()};
  current().restart(progress.lsn);
  const auto count = static_cast<std::uint32_t>(shape.records);
  const unsigned first = current_;
  if (auto status = build_and_write(checkpoint, count, progress); !status) {
    (void)queue_->wait_all();  // nothing of this checkpoint stays under way
    return status;
  }
  KEEL_CHECK(progress.lsn == Lsn(checkpoint.id.start_lsn) + Bytes(checkpoint.id.bytes) &&
                 progress.packed_left == 0 && progress.bulk_left == 0,
             "records do not fill the extent", progress.lsn.value(), progress.packed_left,
             progress.bulk_left);
  if (current_ == first && current().bytes == checkpoint.id.bytes) {
    return write_alone();
  }
  Status status = start_current();
  const Status waited = queue_->wait_all();
  status = status.ok() ? waited : status;
  ++writes_;
  return status.ok() ? file_.device().flush() : status;
}

Status CheckpointWriter::build_and_write(const ClosedCheckpoint& checkpoint, std::uint32_t count,
                                         Progress& progress) {
  std::uint64_t enough_bytes = kFirstBatchBytes;
  for (std::uint32_t index = 0; index < count; ++index) {
    if (current().is_full(enough_bytes)) {
      if (auto status = start_current(); !status) {
        return status;
      }
      if (auto status = next_batch(progress.lsn); !status) {
        return status;
      }
      enough_bytes = kBatchBytes;
    }
    build_record(checkpoint, index, count, progress);
  }
  return {};
}

// The whole checkpoint is in one batch.
Status CheckpointWriter::write_alone() {
  const BatchPieces pieces = current().pieces(file_.geometry());
  LogDevice& device = file_.device();
  ++writes_;
  if (pieces.counts[1] == 0) {
    return device.write_durable(pieces.offsets[0], pieces.parts[0], pieces.counts[0]);
  }
  writes_ += 2;
  for (int i = 0; i < 2; ++i) {
    if (auto status = device.write(pieces.offsets[i], pieces.parts[i], pieces.counts[i]); !status) {
      return status;
    }
  }
  return device.flush();
}

Status CheckpointWriter::start_current() {
  const BatchPieces pieces = current().pieces(file_.geometry());
  for (unsigned i = 0; i < 2 && pieces.counts[i] != 0; ++i) {
    if (auto status =
            queue_->start(2 * current_ + i, pieces.offsets[i], pieces.parts[i], pieces.counts[i]);
        !status) {
      return status;
    }
  }
  return {};
}

// Goes on with the batch that was started longest ago, once it is written.
Status CheckpointWriter::next_batch(Lsn at) {
  current_ = (current_ + 1) % kBatches;
  for (unsigned i = 0; i < 2; ++i) {
    if (auto status = queue_->wait(2 * current_ + i); !status) {
      return status;
    }
  }
  current().restart(at);
  return {};
}

void CheckpointWriter::build_record(const ClosedCheckpoint& checkpoint, std::uint32_t index,
                                    std::uint32_t count, Progress& progress) {
  const Geometry& geometry = file_.geometry();
  const std::uint64_t packed = std::min(progress.packed_left, format::kMaxRecordPackedBytes);
  const std::uint64_t blocks =
      std::min(progress.bulk_left, format::kMaxRecordBulkBytes / geometry.block_bytes);
  const std::uint64_t part_bytes =
      round_up(sizeof(format::RecordHeader) + packed, geometry.block_bytes);

  Batch& batch = current();
  std::byte* place = batch.staging.data() + batch.staging_used;
  progress.packed.take(place + sizeof(format::RecordHeader), packed);
  std::memset(place + sizeof(format::RecordHeader) + packed, 0,
              part_bytes - sizeof(format::RecordHeader) - packed);
  struct iovec* first_part = batch.parts() + batch.part_count;
  *first_part = {place, part_bytes};
  const int bulk_parts = progress.bulk.take(blocks, geometry.block_bytes, first_part + 1);

  format::RecordHeader header{};
  header.magic = format::kRecordMagic;
  header.version = format::kVersion;
  header.header_bytes = sizeof header;
  header.uuid = file_.superblock().uuid;
  header.incarnation = checkpoint.id.incarnation;
  header.sequence = checkpoint.id.sequence;
  header.lsn = progress.lsn.value();
  header.checkpoint_bytes = checkpoint.id.bytes;
  header.item_count = checkpoint.item_count;
  header.predecessor = checkpoint.predecessor;
  header.tail_lsn = checkpoint.tail.value();
  header.stable_lsn = checkpoint.stable.value();
  header.record_index = index;
  header.record_count = count;
  header.packed_bytes = static_cast<std::uint32_t>(packed);
  header.bulk_blocks = static_cast<std::uint32_t>(blocks);
  header.checkpoint_hash = index + 1 == count ? progress.record_hashes.digest() : 0;
  std::memcpy(place, &header, sizeof header);

  Hasher hasher;
  for (int i = 0; i <= bulk_parts; ++i) {
    hasher.update(first_part[i].iov_base, first_part[i].iov_len);
  }
  header.record_hash = hasher.digest();
  std::memcpy(place, &header, sizeof header);
  progress.record_hashes.update(&header.record_hash, sizeof header.record_hash);

  const std::uint64_t bytes = part_bytes + blocks * geometry.block_bytes;
  progress.packed_left -= packed;
  progress.bulk_left -= blocks;
  progress.lsn += Bytes(bytes);
  batch.staging_used += part_bytes;
  batch.part_count += 1 + bulk_parts;
  batch.bytes += bytes;
}

}  // namespace keel
