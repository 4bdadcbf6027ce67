#include "log/batch.h"

#include <cstring>
#include <utility>

namespace keel {
namespace {

// Room for the packed parts of one batch; a full packed part is 64 KiB.
constexpr std::size_t kStagingBytes = std::size_t{1} << 20;
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

BatchPieces Batch::pieces(const Geometry& geometry) {
  const std::uint64_t to_wrap = geometry.bytes_to_wrap(lsn);
  if (bytes <= to_wrap) {
    return {{parts(), nullptr}, {part_count, 0}, {geometry.offset_of(lsn), 0}};
  }
  const int before = split_parts(parts(), part_count, to_wrap);
  return {{parts(), parts() + before},
          {before, part_count - before},
          {geometry.offset_of(lsn), geometry.data_offset()}};
}

}  // namespace keel
