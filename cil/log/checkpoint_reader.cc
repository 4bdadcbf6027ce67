#include "log/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "log/hash.h"

namespace keel {
namespace {

// Large reads, so that one call serves many records.
constexpr std::size_t kWindowBytes = std::size_t{4} << 20;
static_assert(kWindowBytes >= format::kMaxRecordBytes);
// Streams grow in steps of at least this.
constexpr std::uint64_t kStreamStepBytes = std::uint64_t{1} << 20;

bool record_hash_is_right(const format::RecordHeader& header, const std::byte* record,
                          std::uint64_t bytes) {
  format::RecordHeader zeroed = header;
  zeroed.record_hash = 0;
  Hasher hasher;
  hasher.update(&zeroed, sizeof zeroed);
  hasher.update(record + sizeof zeroed, bytes - sizeof zeroed);
  return hasher.digest() == header.record_hash;
}

std::uint64_t bytes_of_record(const format::RecordHeader& header, std::uint32_t block_bytes) {
  return format::record_bytes(header.packed_bytes, header.bulk_blocks, block_bytes);
}

// What every record of a checkpoint must share with its first one.
bool same_checkpoint(const format::RecordHeader& a, const format::RecordHeader& b) {
  return a.incarnation == b.incarnation && a.sequence == b.sequence &&
         a.checkpoint_bytes == b.checkpoint_bytes && a.item_count == b.item_count &&
         a.predecessor == b.predecessor && a.record_count == b.record_count;
}

}  // namespace

Result<CheckpointReader> CheckpointReader::make(const LogFile& file, Pool& pool) {
  const auto bytes = std::min<std::uint64_t>(kWindowBytes, file.geometry().data_bytes);
  auto window = AlignedBuffer::allocate(pool, bytes, "log reading");
  if (!window) {
    return window.error();
  }
  return CheckpointReader(file, pool, std::move(*window));
}

// The bytes at `lsn`, contiguous, until the next call. nullptr if there cannot be so many.
Result<const std::byte*> CheckpointReader::bytes_at(Lsn lsn, std::uint64_t bytes) {
  if (bytes > window_.bytes()) {
    return static_cast<const std::byte*>(nullptr);
  }
  const bool inside = lsn >= window_lsn_ && lsn < window_lsn_ + Bytes(window_valid_);
  const std::uint64_t skip = inside ? (lsn - window_lsn_).value() : 0;
  if (inside && skip + bytes <= window_valid_) {
    return static_cast<const std::byte*>(window_.data() + skip);
  }
  const std::uint64_t kept = inside ? window_valid_ - skip : 0;
  std::memmove(window_.data(), window_.data() + skip, kept);
  window_lsn_ = lsn;
  window_valid_ = kept;
  const std::uint64_t missing = window_.bytes() - kept;
  if (auto status = file_->read(lsn + Bytes(kept), window_.data() + kept, missing); !status) {
    return status.error();
  }
  window_valid_ += missing;
  bytes_read_ += Bytes(missing);
  return static_cast<const std::byte*>(window_.data());
}

// nullptr if the header can be believed as far as its place and lengths go; else the reason.
const char* CheckpointReader::check_header(const format::RecordHeader& header, Lsn lsn) const {
  const format::Superblock& superblock = file_->superblock();
  if (header.magic != format::kRecordMagic || header.version != format::kVersion ||
      header.header_bytes != sizeof header) {
    return "no record header";
  }
  if (header.uuid != superblock.uuid) {
    return "a record of another log";
  }
  if (header.lsn != lsn.value()) {
    return "a record of another place or an earlier lap";
  }
  if (header.packed_bytes > format::kMaxRecordPackedBytes ||
      header.bulk_blocks > format::kMaxRecordBulkBytes / superblock.block_bytes ||
      header.incarnation == 0 || header.record_index >= header.record_count) {
    return "a record header out of bounds";
  }
  return nullptr;
}

// nullptr if the record may be the first of the checkpoint that follows in the chain.
const char* CheckpointReader::check_chain(const format::RecordHeader& header,
                                          const ChainPosition& position) const {
  const format::StateSlot& state = file_->state();
  const std::uint32_t block = file_->superblock().block_bytes;
  if (header.record_index != 0) {
    return "not the first record of a checkpoint";
  }
  if (header.predecessor != position.predecessor ||
      header.sequence != position.predecessor.sequence + 1) {
    return "a checkpoint that follows another one";
  }
  if (position.lsn.value() >= state.incarnation_start_lsn &&
      header.incarnation != state.incarnation) {
    return "a leftover of an earlier incarnation";
  }
  if (header.checkpoint_bytes == 0 || header.checkpoint_bytes % block != 0 ||
      header.checkpoint_bytes > file_->superblock().max_checkpoint_bytes ||
      header.checkpoint_bytes > position.most_bytes ||
      header.record_count > header.checkpoint_bytes / block) {
    return "a checkpoint length out of bounds";
  }
  return nullptr;
}

// nullptr if `header` may be record `index` of the checkpoint at `position`, whose first record is
// `first` (not yet known for index 0).
const char* CheckpointReader::check_place(const format::RecordHeader& header, Lsn lsn,
                                          std::uint32_t index, const format::RecordHeader& first,
                                          const ChainPosition& position) const {
  if (const char* reason = check_header(header, lsn); reason != nullptr) {
    return reason;
  }
  if (index == 0) {
    return check_chain(header, position);
  }
  const bool follows = header.record_index == index && same_checkpoint(first, header);
  return follows ? nullptr : "a record of another checkpoint";
}

// Reads and proves all records, and collects the streams. nullptr if they are whole, or why not.
Result<const char*> CheckpointReader::read_records(const ChainPosition& position,
                                                   format::RecordHeader& first) {
  const std::uint32_t block = file_->geometry().block_bytes;
  packed_bytes_ = 0;
  bulk_bytes_ = 0;
  Hasher record_hashes;
  Lsn lsn = position.lsn;
  std::uint64_t left = block;  // the first header tells how much there is
  for (std::uint32_t index = 0; index == 0 || index < first.record_count; ++index) {
    if (left < block) {
      return "records that exceed their checkpoint";
    }
    auto bytes = bytes_at(lsn, block);
    if (!bytes) {
      return bytes.error();
    }
    format::RecordHeader header;
    std::memcpy(&header, *bytes, sizeof header);
    if (const char* reason = check_place(header, lsn, index, first, position); reason != nullptr) {
      return reason;
    }
    if (index == 0) {
      first = header;
      left = first.checkpoint_bytes;
    }
    const std::uint64_t record_bytes = bytes_of_record(header, block);
    if (record_bytes > left) {
      return "records that exceed their checkpoint";
    }
    bytes = bytes_at(lsn, record_bytes);
    if (!bytes) {
      return bytes.error();
    }
    if (*bytes == nullptr || !record_hash_is_right(header, *bytes, record_bytes)) {
      return "a record whose hash is wrong";
    }
    const bool last = index + 1 == first.record_count;
    if (header.checkpoint_hash != (last ? record_hashes.digest() : 0)) {
      return "a checkpoint whose hash is wrong";
    }
    record_hashes.update(&header.record_hash, sizeof header.record_hash);
    if (auto status = collect(header, *bytes); !status) {
      return status.error();
    }
    lsn += Bytes(record_bytes);
    left -= record_bytes;
  }
  return left == 0 ? nullptr : "records that do not fill their checkpoint";
}

Result<ReadOutcome> CheckpointReader::read(const ChainPosition& position) {
  format::RecordHeader first{};
  const auto records = read_records(position, first);
  if (!records) {
    return records.error();
  }
  const char* reason = *records;
  if (reason == nullptr) {
    try {
      reason = parse(first);
    } catch (const std::bad_alloc&) {
      return Error{Errc::kNoMemory, 0, "read a checkpoint of items", first.item_count};
    }
  }
  if (reason != nullptr) {
    return ReadOutcome{.reason = reason};
  }
  return ReadOutcome{.proven = true,
                     .id = {first.incarnation, first.sequence, first.lsn, first.checkpoint_bytes}};
}

Result<std::optional<format::RecordHeader>> CheckpointReader::read_record(Lsn lsn) {
  const std::uint32_t block = file_->geometry().block_bytes;
  auto bytes = bytes_at(lsn, block);
  if (!bytes) {
    return bytes.error();
  }
  format::RecordHeader header;
  std::memcpy(&header, *bytes, sizeof header);
  if (check_header(header, lsn) != nullptr) {
    return std::optional<format::RecordHeader>();
  }
  const std::uint64_t record_bytes = bytes_of_record(header, block);
  bytes = bytes_at(lsn, record_bytes);
  if (!bytes) {
    return bytes.error();
  }
  const bool right = *bytes != nullptr && record_hash_is_right(header, *bytes, record_bytes);
  return right ? std::optional(header) : std::nullopt;
}

// Makes room for `bytes` more behind the first `used`.
Status CheckpointReader::reserve(AlignedBuffer& buffer, std::uint64_t used, std::uint64_t bytes) {
  if (used + bytes <= buffer.bytes()) {
    return {};
  }
  const std::uint64_t wanted = std::max({used + bytes, 2 * buffer.bytes(), kStreamStepBytes});
  auto larger = AlignedBuffer::allocate(*pool_, wanted, "checkpoint reading");
  if (!larger) {
    return larger.error();
  }
  if (used != 0) {
    std::memcpy(larger->data(), buffer.data(), used);
  }
  buffer = std::move(*larger);
  return {};
}

// Appends a proven record's slices to the two streams.
Status CheckpointReader::collect(const format::RecordHeader& header, const std::byte* record) {
  const std::uint32_t block = file_->geometry().block_bytes;
  const std::uint64_t bulk_bytes = std::uint64_t{header.bulk_blocks} * block;
  if (auto status = reserve(packed_, packed_bytes_, header.packed_bytes); !status) {
    return status;
  }
  if (auto status = reserve(bulk_, bulk_bytes_, bulk_bytes); !status) {
    return status;
  }
  if (header.packed_bytes != 0) {
    std::memcpy(packed_.data() + packed_bytes_, record + sizeof header, header.packed_bytes);
  }
  if (bulk_bytes != 0) {
    const std::uint64_t part = round_up(sizeof header + header.packed_bytes, block);
    std::memcpy(bulk_.data() + bulk_bytes_, record + part, bulk_bytes);
  }
  packed_bytes_ += header.packed_bytes;
  bulk_bytes_ += bulk_bytes;
  return {};
}

// Walks the packed stream. Without `fill` it checks every bound and counts; with it, it builds the
// items (whose spans point into regions_, which must not move any more).
const char* CheckpointReader::walk_items(bool fill) {
  const std::uint32_t block = file_->geometry().block_bytes;
  const std::byte* packed = packed_.data();
  std::uint64_t at = 0;
  std::uint64_t bulk_at = 0;
  std::uint64_t region_count = 0;
  std::uint64_t item_count = 0;
  while (at < packed_bytes_) {
    format::ItemHeader item;
    if (packed_bytes_ - at < sizeof item) {
      return "an item header that is cut off";
    }
    std::memcpy(&item, packed + at, sizeof item);
    at += sizeof item;
    if (item.type == 0 || item.region_count == 0) {
      return "an item header out of bounds";
    }
    const std::uint64_t first_region = region_count;
    for (std::uint32_t i = 0; i < item.region_count; ++i) {
      format::RegionHeader region;
      if (packed_bytes_ - at < sizeof region) {
        return "a region header that is cut off";
      }
      std::memcpy(&region, packed + at, sizeof region);
      at += sizeof region;
      const std::uint64_t bulk_bytes = std::uint64_t{region.bulk_blocks} * block;
      const std::uint64_t padded = round_up(region.rest_bytes, format::kPackedUnitBytes);
      if (region.rest_bytes >= block || padded > packed_bytes_ - at ||
          bulk_bytes > bulk_bytes_ - bulk_at) {
        return "a region out of bounds";
      }
      if (fill) {
        regions_.push_back(
            {{bulk_.data() + bulk_at, bulk_bytes}, {packed + at, region.rest_bytes}});
      }
      at += padded;
      bulk_at += bulk_bytes;
      ++region_count;
    }
    if (fill) {
      items_.emplace_back(item.type,
                          std::span<const RecoveredRegion>(regions_).subspan(first_region));
    }
    ++item_count;
  }
  if (bulk_at != bulk_bytes_) {
    return "bulk blocks that belong to no region";
  }
  if (!fill) {
    regions_.clear();
    items_.clear();
    regions_.reserve(region_count);
    items_.reserve(item_count);
  }
  return nullptr;
}

const char* CheckpointReader::parse(const format::RecordHeader& first) {
  if (const char* reason = walk_items(false); reason != nullptr) {
    return reason;
  }
  (void)walk_items(true);
  if (items_.size() != first.item_count) {
    return "an item count that is wrong";
  }
  checkpoint_.sequence = Sequence(first.sequence);
  checkpoint_.start = Lsn(first.lsn);
  checkpoint_.bytes = Bytes(first.checkpoint_bytes);
  checkpoint_.incarnation = first.incarnation;
  checkpoint_.record_count = first.record_count;
  checkpoint_.tail = Lsn(first.tail_lsn);
  checkpoint_.stable = Lsn(first.stable_lsn);
  checkpoint_.items = items_;
  return nullptr;
}

}  // namespace keel
