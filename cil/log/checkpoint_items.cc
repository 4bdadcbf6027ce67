#include "log/checkpoint_items.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "keel/base/check.h"
#include "log/format.h"

namespace keel {
namespace {

// Copies are kept for the next checkpoint up to this size, however small that is.
constexpr std::uint64_t kKeptBytes = std::uint64_t{4} << 20;

}  // namespace

// How far a walk has come, in both streams and in what it makes.
struct CheckpointItems::Counts {
  std::uint64_t packed = 0;  // bytes
  std::uint64_t bulk = 0;    // bytes
  std::size_t piece = 0;     // of bulk_, that the next block is in
  std::uint64_t piece_used = 0;
  std::uint64_t joined = 0;  // bytes
  std::uint64_t regions = 0;
  std::uint64_t items = 0;
};

void CheckpointItems::begin(std::uint64_t checkpoint_bytes, std::uint32_t record_count) {
  packed_bytes_ = 0;
  bulk_bytes_ = 0;
  bulk_.clear();
  most_packed_ = std::min(record_count * format::kMaxRecordPackedBytes, checkpoint_bytes);
  // Checkpoints of many small regions and of few large ones may take turns.
  if (packed_.bytes() > std::max(most_packed_, kKeptBytes)) {
    packed_ = ReadBuffer();
  }
  if (joined_.bytes() + most_packed_ > std::max(checkpoint_bytes, kKeptBytes)) {
    joined_ = ReadBuffer();
  }
}

// Room for a few records first: a header alone, though its hash is right, does not decide how much
// memory is taken. Beyond that it is room for all, so that nothing is copied twice.
Status CheckpointItems::add_packed(std::span<const std::byte> packed) {
  const std::uint64_t needed = packed_bytes_ + packed.size();
  KEEL_CHECK(needed <= most_packed_, "more packed bytes than begun for", needed, most_packed_);
  if (needed > packed_.bytes()) {
    const std::uint64_t room =
        needed <= kKeptBytes ? std::min(most_packed_, kKeptBytes) : most_packed_;
    auto larger = ReadBuffer::allocate(room);
    if (!larger) {
      return larger.error();
    }
    if (packed_bytes_ != 0) {
      std::memcpy(larger->data(), packed_.data(), packed_bytes_);
    }
    packed_ = std::move(*larger);
  }
  if (!packed.empty()) {
    std::memcpy(packed_.data() + packed_bytes_, packed.data(), packed.size());
  }
  packed_bytes_ = needed;
  return {};
}

Status CheckpointItems::add_bulk(std::span<const std::byte> bulk) {
  try {
    bulk_.push_back(bulk);
  } catch (const std::bad_alloc&) {
    return Error{Errc::kNoMemory, 0, "read a checkpoint's blocks, in pieces", bulk_.size()};
  }
  bulk_bytes_ += bulk.size();
  return {};
}

// The next `bytes` of the bulk stream, which has as many. Without `fill`: empty, only counted.
std::span<const std::byte> CheckpointItems::take_bulk(std::uint64_t bytes, Counts& counts,
                                                      bool fill) {
  counts.bulk += bytes;
  if (bytes == 0) {
    return {};
  }
  if (counts.piece_used == bulk_[counts.piece].size()) {
    ++counts.piece;
    counts.piece_used = 0;
  }
  if (bytes <= bulk_[counts.piece].size() - counts.piece_used) {
    const auto whole = bulk_[counts.piece].subspan(counts.piece_used, bytes);
    counts.piece_used += bytes;
    return whole;
  }
  std::byte* place = fill ? joined_.data() + counts.joined : nullptr;
  counts.joined += bytes;
  for (std::uint64_t done = 0; done < bytes;) {
    if (counts.piece_used == bulk_[counts.piece].size()) {
      ++counts.piece;
      counts.piece_used = 0;
    }
    const std::span<const std::byte> piece = bulk_[counts.piece].subspan(counts.piece_used);
    const std::uint64_t now = std::min<std::uint64_t>(piece.size(), bytes - done);
    if (fill) {
      std::memcpy(place + done, piece.data(), now);
    }
    counts.piece_used += now;
    done += now;
  }
  return {place, fill ? bytes : 0};
}

// Goes through the packed stream. Without `fill` it checks every bound and counts; with it, it
// makes the items (whose spans point into regions_, which must not move any more).
const char* CheckpointItems::walk(Counts& counts, bool fill) {
  const std::byte* packed = packed_.data();
  while (counts.packed < packed_bytes_) {
    format::ItemHeader item;
    if (packed_bytes_ - counts.packed < sizeof item) {
      return "an item header that is cut off";
    }
    std::memcpy(&item, packed + counts.packed, sizeof item);
    counts.packed += sizeof item;
    if (item.type == 0 || item.region_count == 0) {
      return "an item header out of bounds";
    }
    const std::uint64_t first_region = counts.regions;
    for (std::uint32_t i = 0; i < item.region_count; ++i) {
      format::RegionHeader region;
      if (packed_bytes_ - counts.packed < sizeof region) {
        return "a region header that is cut off";
      }
      std::memcpy(&region, packed + counts.packed, sizeof region);
      counts.packed += sizeof region;
      const std::uint64_t bulk_bytes = std::uint64_t{region.bulk_blocks} * block_bytes_;
      const std::uint64_t padded =
          round_up(std::uint64_t{region.rest_bytes}, format::kPackedUnitBytes);
      if (region.rest_bytes >= block_bytes_ || padded > packed_bytes_ - counts.packed ||
          bulk_bytes > bulk_bytes_ - counts.bulk) {
        return "a region out of bounds";
      }
      const auto bulk = take_bulk(bulk_bytes, counts, fill);
      if (fill) {
        regions_.push_back({bulk, {packed + counts.packed, region.rest_bytes}});
      }
      counts.packed += padded;
      ++counts.regions;
    }
    if (fill) {
      items_.emplace_back(item.type,
                          std::span<const RecoveredRegion>(regions_).subspan(first_region));
    }
    ++counts.items;
  }
  return counts.bulk == bulk_bytes_ ? nullptr : "bulk blocks that belong to no region";
}

Result<const char*> CheckpointItems::parse() {
  Counts counts;
  if (const char* reason = walk(counts, false); reason != nullptr) {
    return reason;
  }
  if (counts.joined > joined_.bytes()) {
    joined_ = ReadBuffer();  // first, so that there are never two
    auto larger = ReadBuffer::allocate(counts.joined);
    if (!larger) {
      return larger.error();
    }
    joined_ = std::move(*larger);
  }
  regions_.clear();
  items_.clear();
  try {
    regions_.reserve(counts.regions);
    items_.reserve(counts.items);
  } catch (const std::bad_alloc&) {
    return Error{Errc::kNoMemory, 0, "read a checkpoint of items", counts.items};
  }
  Counts filled;
  (void)walk(filled, true);
  return static_cast<const char*>(nullptr);
}

}  // namespace keel
