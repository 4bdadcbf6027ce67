#include "log/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "log/hash.h"

namespace keel {
namespace {

// What every record of a checkpoint must share with its first one.
bool same_checkpoint(const format::RecordHeader& a, const format::RecordHeader& b) {
  return a.incarnation == b.incarnation && a.sequence == b.sequence &&
         a.checkpoint_bytes == b.checkpoint_bytes && a.item_count == b.item_count &&
         a.predecessor == b.predecessor && a.record_count == b.record_count;
}

}  // namespace

Result<CheckpointReader> CheckpointReader::make(const LogFile& file,
                                                const ReadAheadOptions& options) {
  auto ahead = ReadAhead::make(file, options);
  if (!ahead) {
    return ahead.error();
  }
  return CheckpointReader(file, std::move(*ahead));
}

void CheckpointReader::read_ahead(Lsn from, Lsn limit) {
  if (ahead_->covers(from)) {
    ahead_->extend(limit);
  } else {
    ahead_->restart(from, limit);
  }
}

std::uint64_t CheckpointReader::bytes_of(const format::RecordHeader& header) const {
  return format::record_bytes(header.packed_bytes, header.bulk_blocks, superblock_.block_bytes);
}

// Chunks begin and end with blocks, so that no header is ever in two.
Result<format::RecordHeader> CheckpointReader::header_at(Lsn lsn) {
  read_ahead(lsn, lsn + Bytes(superblock_.block_bytes));
  const auto bytes = ahead_->at(lsn);
  if (!bytes) {
    return bytes.error();
  }
  format::RecordHeader header;
  std::memcpy(&header, bytes->data(), sizeof header);
  return header;
}

// Calls use(span) for the bytes from `lsn` on, piece by piece; it returns a Status.
template <class Use>
Status CheckpointReader::each_piece(Lsn lsn, std::uint64_t bytes, Use&& use) {
  ahead_->extend(lsn + Bytes(round_up(bytes, superblock_.block_bytes)));
  while (bytes > 0) {
    const auto found = ahead_->at(lsn);
    if (!found) {
      return found.error();
    }
    const auto piece = found->first(std::min<std::uint64_t>(found->size(), bytes));
    if (auto status = use(piece); !status) {
      return status;
    }
    lsn += Bytes(piece.size());
    bytes -= piece.size();
  }
  return {};
}

Result<bool> CheckpointReader::record_is_whole(Lsn lsn, const format::RecordHeader& header) {
  format::RecordHeader zeroed = header;
  zeroed.record_hash = 0;
  Hasher hasher;
  hasher.update(&zeroed, sizeof zeroed);
  std::size_t skip = sizeof zeroed;
  const std::uint64_t bytes = bytes_of(header);
  const Status status = each_piece(lsn, bytes, [&](std::span<const std::byte> piece) {
    const auto hashed = piece.subspan(std::exchange(skip, 0));
    hasher.update(hashed.data(), hashed.size());
    return Status{};
  });
  if (!status) {
    return status.error();
  }
  bytes_hashed_ += Bytes(bytes);
  return hasher.digest() == header.record_hash;
}

// nullptr if the header can be believed as far as its place and lengths go; else the reason.
const char* CheckpointReader::check_header(const format::RecordHeader& header, Lsn lsn) const {
  if (header.magic != format::kRecordMagic || header.version != format::kVersion ||
      header.header_bytes != sizeof header) {
    return "no record header";
  }
  if (header.uuid != superblock_.uuid) {
    return "a record of another log";
  }
  if (header.lsn != lsn.value()) {
    return "a record of another place or an earlier lap";
  }
  if (header.packed_bytes > format::kMaxRecordPackedBytes ||
      header.bulk_blocks > format::kMaxRecordBulkBytes / superblock_.block_bytes ||
      header.incarnation == 0 || header.record_index >= header.record_count) {
    return "a record header out of bounds";
  }
  return nullptr;
}

// nullptr if the record may be the first of the checkpoint that follows in the chain.
const char* CheckpointReader::check_chain(const format::RecordHeader& header,
                                          const ChainPosition& position) const {
  const std::uint32_t block = superblock_.block_bytes;
  if (header.record_index != 0) {
    return "not the first record of a checkpoint";
  }
  if (header.predecessor != position.predecessor ||
      header.sequence != position.predecessor.sequence + 1) {
    return "a checkpoint that follows another one";
  }
  if (position.lsn.value() >= incarnation_start_ && header.incarnation != incarnation_) {
    return "a leftover of an earlier incarnation";
  }
  if (header.checkpoint_bytes == 0 || header.checkpoint_bytes % block != 0 ||
      header.checkpoint_bytes > superblock_.max_checkpoint_bytes ||
      header.record_count > header.checkpoint_bytes / block) {
    return "a checkpoint length out of bounds";
  }
  return header.checkpoint_bytes <= position.most_bytes ? nullptr : kBeyondEnd;
}

// nullptr if `header` may be record `index` of the checkpoint at `position`, whose first record is
// `first` (not yet known for index 0).
const char* CheckpointReader::check_place(const format::RecordHeader& header, Lsn lsn,
                                          std::uint32_t index, const format::RecordHeader& first,
                                          const ChainPosition& position) const {
  if (const char* reason = check_header(header, lsn); reason != nullptr) {
    return reason;
  }
  if (lsn >= position.records_below) {
    return "a record beyond where the newest state lets the log reach";
  }
  if (index == 0) {
    return check_chain(header, position);
  }
  const bool follows = header.record_index == index && same_checkpoint(first, header);
  return follows ? nullptr : "a record of another checkpoint";
}

// nullptr if the record is whole and the checkpoint's hash is right so far.
Result<const char*> CheckpointReader::prove_record(Lsn lsn, const format::RecordHeader& header,
                                                   Hasher& record_hashes) {
  const auto whole = record_is_whole(lsn, header);
  if (!whole) {
    return whole.error();
  }
  if (!*whole) {
    return "a record whose hash is wrong";
  }
  const bool last = header.record_index + 1 == header.record_count;
  if (header.checkpoint_hash != (last ? record_hashes.digest() : 0)) {
    return "a checkpoint whose hash is wrong";
  }
  record_hashes.update(&header.record_hash, sizeof header.record_hash);
  return nullptr;
}

// Reads and proves all records, and collects the streams. nullptr if they are whole, or why not.
Result<const char*> CheckpointReader::read_records(const ChainPosition& position,
                                                   format::RecordHeader& first) {
  const std::uint32_t block = superblock_.block_bytes;
  Hasher record_hashes;
  Lsn lsn = position.lsn;
  std::uint64_t left = std::min<std::uint64_t>(block, position.most_bytes);
  for (std::uint32_t index = 0; index == 0 || index < first.record_count; ++index) {
    if (left < block) {
      return "records that exceed their checkpoint";
    }
    const auto header = header_at(lsn);
    if (!header) {
      return header.error();
    }
    if (const char* reason = check_place(*header, lsn, index, first, position); reason != nullptr) {
      return reason;
    }
    if (index == 0) {
      first = *header;
      left = first.checkpoint_bytes;
      ahead_->extend(lsn + Bytes(left));
    }
    if (bytes_of(*header) > left) {
      return "records that exceed their checkpoint";
    }
    auto reason = prove_record(lsn, *header, record_hashes);
    if (!reason || *reason != nullptr) {
      return reason;
    }
    if (auto status = collect(lsn, *header); !status) {
      return status.error();
    }
    lsn += Bytes(bytes_of(*header));
    left -= bytes_of(*header);
  }
  return left == 0 ? nullptr : "records that do not fill their checkpoint";
}

Result<ReadOutcome> CheckpointReader::read(const ChainPosition& position) {
  if (ahead_->covers(position.lsn)) {
    ahead_->release_below(position.lsn);
  }
  format::RecordHeader first{};
  auto reason = read_records(position, first);
  if (reason && *reason == nullptr) {
    reason = items_.parse();
  }
  if (!reason) {
    return reason.error();
  }
  if (*reason == nullptr && items_.items().size() != first.item_count) {
    reason = "an item count that is wrong";
  }
  if (*reason != nullptr) {
    return ReadOutcome{.beyond_end = *reason == kBeyondEnd, .reason = *reason};
  }
  describe(first);
  return ReadOutcome{.proven = true,
                     .id = {first.incarnation, first.sequence, first.lsn, first.checkpoint_bytes}};
}

Result<std::optional<format::RecordHeader>> CheckpointReader::read_header(Lsn lsn) {
  if (ahead_->covers(lsn)) {
    ahead_->release_below(lsn);
  }
  const auto header = header_at(lsn);
  if (!header) {
    return header.error();
  }
  return check_header(*header, lsn) == nullptr ? std::optional(*header) : std::nullopt;
}

// Adds a proven record's slices to the two streams.
Status CheckpointReader::collect(Lsn lsn, const format::RecordHeader& header) {
  if (header.record_index == 0) {
    items_.begin(header.checkpoint_bytes, header.record_count);
  }
  const std::uint64_t packed_end = sizeof header + header.packed_bytes;
  std::uint64_t skip = sizeof header;
  const auto add_packed = [&](std::span<const std::byte> piece) {
    return items_.add_packed(piece.subspan(std::exchange(skip, 0)));
  };
  if (auto status = each_piece(lsn, packed_end, add_packed); !status) {
    return status;
  }
  const std::uint32_t block = superblock_.block_bytes;
  return each_piece(lsn + Bytes(round_up(packed_end, block)),
                    std::uint64_t{header.bulk_blocks} * block,
                    [&](std::span<const std::byte> piece) { return items_.add_bulk(piece); });
}

void CheckpointReader::describe(const format::RecordHeader& first) {
  checkpoint_.sequence = Sequence(first.sequence);
  checkpoint_.start = Lsn(first.lsn);
  checkpoint_.bytes = Bytes(first.checkpoint_bytes);
  checkpoint_.incarnation = first.incarnation;
  checkpoint_.record_count = first.record_count;
  checkpoint_.tail = Lsn(first.tail_lsn);
  checkpoint_.stable = Lsn(first.stable_lsn);
  checkpoint_.items = items_.items();
}

}  // namespace keel
