#include "log/checkpoint_writer.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace keel {
namespace {

// A checkpoint's first batch is small: nothing is on its way to the disk while it is built.
constexpr std::uint64_t kFirstBatchBytes = std::uint64_t{256} << 10;
constexpr std::uint64_t kBatchBytes = std::uint64_t{1} << 20;

std::uint64_t bulk_blocks_of(const Region& region, const LogVector& vector) {
  return region.bytes / vector.block_bytes;
}

}  // namespace

void PackedStream::take(std::byte* place, std::size_t bytes) {
  while (bytes > 0) {
    if (piece_bytes_ == 0) {
      KEEL_CHECK(next_piece(), "the packed stream is shorter than accounted", bytes);
      continue;
    }
    const std::size_t now = std::min(bytes, piece_bytes_);
    std::memcpy(place, piece_, now);
    place += now;
    bytes -= now;
    piece_ += now;
    piece_bytes_ -= now;
  }
}

// Sets piece_ to what follows; false at the stream's end. A step may turn out empty.
bool PackedStream::next_piece() {
  while (vector_ != nullptr && vector_->region_count == 0) {
    vector_ = vector_->next;
  }
  if (vector_ == nullptr) {
    return false;
  }
  const auto header = [this](const auto& value) {
    static_assert(sizeof value == sizeof scratch_);
    std::memcpy(&scratch_, &value, sizeof value);
    piece_ = reinterpret_cast<const std::byte*>(&scratch_);
    piece_bytes_ = sizeof scratch_;
  };
  if (step_ == Step::kItem) {
    if (vector_->next != nullptr) {
      __builtin_prefetch(vector_->next->item);
      __builtin_prefetch(vector_->next + 1);
    }
    header(format::ItemHeader{vector_->item->type(), vector_->region_count});
    region_ = 0;
    step_ = Step::kRegion;
    return true;
  }
  const Region& region = vector_->regions()[region_];
  const std::uint64_t bulk_bytes = bulk_blocks_of(region, *vector_) * vector_->block_bytes;
  const std::size_t rest = region.bytes - bulk_bytes;
  switch (step_) {
    case Step::kRegion:
      header(format::RegionHeader{static_cast<std::uint32_t>(bulk_blocks_of(region, *vector_)),
                                  static_cast<std::uint32_t>(rest)});
      step_ = Step::kRest;
      break;
    case Step::kRest:
      piece_ = region.data + bulk_bytes;
      piece_bytes_ = rest;
      step_ = Step::kPadding;
      break;
    default:
      scratch_ = 0;
      piece_ = reinterpret_cast<const std::byte*>(&scratch_);
      piece_bytes_ = round_up(rest, format::kPackedUnitBytes) - rest;
      if (++region_ < vector_->region_count) {
        step_ = Step::kRegion;
      } else {
        step_ = Step::kItem;
        vector_ = vector_->next;
      }
      break;
  }
  return true;
}

int BulkStream::take(std::uint64_t blocks, std::uint32_t block_bytes, struct iovec* parts) {
  int count = 0;
  while (blocks > 0) {
    KEEL_CHECK(vector_ != nullptr, "the bulk stream is shorter than accounted", blocks);
    if (region_ == vector_->region_count) {
      vector_ = vector_->next;
      region_ = 0;
      continue;
    }
    const Region& region = vector_->regions()[region_];
    const std::uint64_t left = bulk_blocks_of(region, *vector_) - taken_blocks_;
    const std::uint64_t now = std::min(left, blocks);
    if (now > 0) {
      parts[count++] = {region.data + taken_blocks_ * block_bytes, now * block_bytes};
      taken_blocks_ += now;
      blocks -= now;
    }
    if (now == left) {
      ++region_;
      taken_blocks_ = 0;
    }
  }
  return count;
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
