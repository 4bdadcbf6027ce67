// On-disk format version 1: every byte that keel writes to a log. FORMAT.md says the same in prose.
//
// I1 All integers are little endian; no struct has padding. Sizes and offsets are asserted below,
//    so that a field that moves does not compile.
// I2 Every hash is XXH3, 64 bit, over the bytes it names with its own field set to zero.
// I3 What is read from disk is hostile until its hash and every bound has been checked.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "keel/base/units.h"

namespace keel::format {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

inline constexpr std::uint64_t kSuperblockMagic = 0x31474f4c4c45454bULL;  // "KEELLOG1"
inline constexpr std::uint64_t kStateMagic = 0x314154534c45454bULL;       // "KEELSTA1"
inline constexpr std::uint64_t kRecordMagic = 0x314345524c45454bULL;      // "KEELREC1"
inline constexpr std::uint32_t kVersion = 1;

inline constexpr std::uint32_t kMinBlockBytes = 4096;
inline constexpr std::uint32_t kMaxBlockBytes = 65536;

// The file, in blocks: superblock, state slot 0, the data area, state slot 1, superblock copy.
inline constexpr std::uint64_t kBlocksBeforeData = 2;
inline constexpr std::uint64_t kBlocksAfterData = 2;
inline constexpr std::uint64_t kMinDataBlocks = 64;
// Shorter checkpoints hold no transaction at all: begin() reserves for the worst split into
// regions, and begin_done() would wait for ever.
inline constexpr std::uint64_t kMinCheckpointBlocks = 4;

// LSNs, sequences and generations are below this, so that no sum of them wraps.
inline constexpr std::uint64_t kCountLimit = std::uint64_t{1} << 62;
// A log in which one of them has come this far is read, but not opened for writing: what was
// written to it could come to the limit, and its state would then be no valid one.
inline constexpr std::uint64_t kOpenLimit = kCountLimit / 2;

using Uuid = std::array<std::uint8_t, 16>;

struct Superblock {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t struct_bytes;          // sizeof(Superblock)
  Uuid uuid;                           // of this log, random
  std::uint32_t block_bytes;           // unit of every offset and length; a power of two
  std::uint32_t reserved;              // 0
  std::uint64_t file_bytes;            // the whole file
  std::uint64_t data_bytes;            // log size: LSN x stands at data offset x mod data_bytes
  std::uint64_t max_checkpoint_bytes;  // kMinCheckpointBlocks to a quarter of data_bytes
  std::uint64_t created_realtime_ns;   // since 1970
  std::uint64_t hash;                  // over this struct
};
static_assert(sizeof(Superblock) == 80);

// Names one checkpoint for the one that follows it. All zero: there is none before.
struct CheckpointId {
  std::uint64_t incarnation;
  std::uint64_t sequence;
  std::uint64_t start_lsn;
  std::uint64_t bytes;
  bool operator==(const CheckpointId&) const = default;
};
static_assert(sizeof(CheckpointId) == 32);

inline constexpr std::uint64_t kStateClean = 1;  // closed: the log ends at stable_lsn

// Where recovery starts and which incarnation owns the head. Written to both slots, one after the
// other with a flush between, so that one damaged slot never hides the newest state.
struct StateSlot {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t struct_bytes;  // sizeof(StateSlot)
  Uuid uuid;
  std::uint64_t generation;             // grows by one a write; the larger valid one counts
  std::uint64_t incarnation;            // random; never 0
  std::uint64_t incarnation_start_lsn;  // checkpoints from here on belong to `incarnation`
  std::uint64_t tail_lsn;               // recovery reads from here
  CheckpointId tail_predecessor;        // what the checkpoint at tail_lsn must name
  std::uint64_t stable_lsn;             // everything below was stable when this was written
  std::uint64_t flags;                  // kStateClean
  std::uint64_t hash;                   // over this struct
};
static_assert(sizeof(StateSlot) == 120);

// A checkpoint is one extent of LSNs, cut into records. A record is, on disk:
//   header, packed bytes, zeros to the end of the block, then bulk_blocks whole blocks.
// The packed bytes of all records form one stream of items (below); the bulk blocks form another.
struct RecordHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t header_bytes;  // sizeof(RecordHeader)
  Uuid uuid;
  std::uint64_t incarnation;
  std::uint64_t sequence;          // of the checkpoint
  std::uint64_t lsn;               // of this record
  std::uint64_t checkpoint_bytes;  // the whole extent
  std::uint64_t item_count;        // in the whole checkpoint
  CheckpointId predecessor;        // of the checkpoint
  std::uint64_t tail_lsn;          // when this was built
  std::uint64_t stable_lsn;        // everything below was stable when this was built
  std::uint32_t record_index;      // place in the checkpoint
  std::uint32_t record_count;
  std::uint32_t packed_bytes;  // after the header
  std::uint32_t bulk_blocks;
  std::uint64_t checkpoint_hash;  // last record: over the record hashes before it; others: 0
  std::uint64_t record_hash;      // over the whole record
};
static_assert(sizeof(RecordHeader) == 152);

// What one record may hold. Record i of a checkpoint holds the i-th slice of this size of each
// stream.
inline constexpr std::uint64_t kMaxPackedPartBytes = 65536;  // header and packed bytes
inline constexpr std::uint64_t kMaxRecordPackedBytes = kMaxPackedPartBytes - sizeof(RecordHeader);
inline constexpr std::uint64_t kMaxRecordBulkBytes = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kMaxRecordBytes = kMaxPackedPartBytes + kMaxRecordBulkBytes;
static_assert(kMaxPackedPartBytes % kMaxBlockBytes == 0);
static_assert(kMaxRecordBulkBytes % kMaxBlockBytes == 0);
// Everything in the packed stream starts at a multiple of this; rests are padded to it.
inline constexpr std::uint64_t kPackedUnitBytes = 8;
static_assert(kMaxRecordPackedBytes % kPackedUnitBytes == 0, "units are never cut by a record");

// The packed stream: for each item an ItemHeader, then for each of its regions a RegionHeader and
// `rest_bytes` bytes, padded with zeros to whole units. The region is its bulk blocks, taken in
// order from the bulk stream, followed by the rest.
struct ItemHeader {
  std::uint32_t type;  // 1 to 15 are keel's own, from 16 on the client's
  std::uint32_t region_count;
};
struct RegionHeader {
  std::uint32_t bulk_blocks;
  std::uint32_t rest_bytes;  // below block_bytes
};
static_assert(sizeof(ItemHeader) == kPackedUnitBytes && sizeof(RegionHeader) == kPackedUnitBytes);

// Ranges of something that has `size_bytes` (below): a table of Range, ascending, disjoint, none
// empty, all within; then one region for each entry, in order, of the bytes there. No ranges: no
// table.
struct Range {
  std::uint64_t offset;
  std::uint64_t bytes;
};
static_assert(sizeof(Range) == 16);

inline constexpr std::uint32_t kTypeObject = 1;
inline constexpr std::uint32_t kTypeRange = 2;
inline constexpr std::uint32_t kTypeIntent = 3;
inline constexpr std::uint32_t kTypeDone = 4;
inline constexpr std::uint32_t kFirstClientType = 16;

// First region of an item of type kTypeObject. kWrite: the second, if size_bytes is not 0, holds
// the object's bytes. kWriteRanges: the ranges follow.
enum class ObjectOperation : std::uint32_t { kWrite = 1, kErase = 2, kWriteRanges = 3 };
struct ObjectHeader {
  std::uint64_t id;
  std::uint64_t size_bytes;   // of the object; 0 for kErase
  std::uint32_t operation;    // ObjectOperation
  std::uint32_t range_count;  // 0 but for kWriteRanges
};
static_assert(sizeof(ObjectHeader) == 24);

// First region of an item of type kTypeRange; the ranges follow, at least one.
struct RangeHeader {
  std::uint64_t id;
  std::uint64_t size_bytes;  // of the memory
  std::uint64_t range_count;
};
static_assert(sizeof(RangeHeader) == 24);

// First region of an item of type kTypeIntent; the second, if payload_bytes is not 0, is the
// payload.
struct IntentHeader {
  std::uint64_t id;
  std::uint64_t payload_bytes;
};
// The one region of an item of type kTypeDone: the intent's id.
struct DoneHeader {
  std::uint64_t id;
};
static_assert(sizeof(IntentHeader) == 16 && sizeof(DoneHeader) == 8);

// Plain bytes without padding.
template <class Struct>
inline constexpr bool kIsPlain = std::is_trivially_copyable_v<Struct>&&
    std::is_standard_layout_v<Struct>&& std::has_unique_object_representations_v<Struct>;
static_assert(kIsPlain<Superblock> && kIsPlain<CheckpointId> && kIsPlain<StateSlot> &&
              kIsPlain<RecordHeader> && kIsPlain<ItemHeader> && kIsPlain<RegionHeader> &&
              kIsPlain<ObjectHeader> && kIsPlain<Range> && kIsPlain<RangeHeader> &&
              kIsPlain<IntentHeader> && kIsPlain<DoneHeader>);

// The offsets in FORMAT.md's tables, of the fields that others could change places with.
static_assert(offsetof(Superblock, uuid) == 16 && offsetof(Superblock, block_bytes) == 32 &&
              offsetof(Superblock, file_bytes) == 40 && offsetof(Superblock, data_bytes) == 48 &&
              offsetof(Superblock, max_checkpoint_bytes) == 56 &&
              offsetof(Superblock, created_realtime_ns) == 64 && offsetof(Superblock, hash) == 72);
static_assert(offsetof(CheckpointId, incarnation) == 0 && offsetof(CheckpointId, sequence) == 8 &&
              offsetof(CheckpointId, start_lsn) == 16 && offsetof(CheckpointId, bytes) == 24);
static_assert(offsetof(StateSlot, uuid) == 16 && offsetof(StateSlot, generation) == 32 &&
              offsetof(StateSlot, incarnation) == 40 &&
              offsetof(StateSlot, incarnation_start_lsn) == 48 &&
              offsetof(StateSlot, tail_lsn) == 56 && offsetof(StateSlot, tail_predecessor) == 64 &&
              offsetof(StateSlot, stable_lsn) == 96 && offsetof(StateSlot, flags) == 104 &&
              offsetof(StateSlot, hash) == 112);
static_assert(
    offsetof(RecordHeader, uuid) == 16 && offsetof(RecordHeader, incarnation) == 32 &&
    offsetof(RecordHeader, sequence) == 40 && offsetof(RecordHeader, lsn) == 48 &&
    offsetof(RecordHeader, checkpoint_bytes) == 56 && offsetof(RecordHeader, item_count) == 64 &&
    offsetof(RecordHeader, predecessor) == 72 && offsetof(RecordHeader, tail_lsn) == 104 &&
    offsetof(RecordHeader, stable_lsn) == 112 && offsetof(RecordHeader, record_index) == 120 &&
    offsetof(RecordHeader, record_count) == 124 && offsetof(RecordHeader, packed_bytes) == 128 &&
    offsetof(RecordHeader, bulk_blocks) == 132 && offsetof(RecordHeader, checkpoint_hash) == 136 &&
    offsetof(RecordHeader, record_hash) == 144);
static_assert(offsetof(Range, bytes) == 8);
static_assert(offsetof(ObjectHeader, size_bytes) == 8 && offsetof(ObjectHeader, operation) == 16 &&
              offsetof(ObjectHeader, range_count) == 20);
static_assert(offsetof(IntentHeader, payload_bytes) == 8);
static_assert(offsetof(RangeHeader, size_bytes) == 8 && offsetof(RangeHeader, range_count) == 16);
static_assert(kMaxRecordPackedBytes == 65384 && kMaxRecordBulkBytes == 1048576);

// Bytes that a region whose rest is this long takes in the packed stream.
constexpr std::uint64_t region_packed_bytes(std::uint64_t rest_bytes) {
  return sizeof(RegionHeader) + round_up(rest_bytes, kPackedUnitBytes);
}

// Bytes that a record with these counts takes in the log.
constexpr std::uint64_t record_bytes(std::uint64_t packed_bytes, std::uint64_t bulk_blocks,
                                     std::uint64_t block_bytes) {
  return round_up(sizeof(RecordHeader) + packed_bytes, block_bytes) + bulk_blocks * block_bytes;
}

constexpr std::uint64_t div_round_up(std::uint64_t value, std::uint64_t by) {
  return value / by + (value % by != 0 ? 1 : 0);
}

// Records and bytes of a checkpoint with these stream lengths. Longer streams never take less.
struct CheckpointShape {
  std::uint64_t records;
  std::uint64_t bytes;
};
constexpr CheckpointShape checkpoint_shape(std::uint64_t packed_bytes, std::uint64_t bulk_blocks,
                                           std::uint64_t block_bytes) {
  const std::uint64_t packed_records = div_round_up(packed_bytes, kMaxRecordPackedBytes);
  const std::uint64_t bulk_records = div_round_up(bulk_blocks, kMaxRecordBulkBytes / block_bytes);
  std::uint64_t records = packed_records > bulk_records ? packed_records : bulk_records;
  records = records > 1 ? records : 1;
  // Full packed parts are whole blocks, so only the last one is rounded; records past the packed
  // stream's end have a header block of their own.
  const std::uint64_t with_packed = packed_records > 1 ? packed_records : 1;
  const std::uint64_t packed_parts =
      round_up(with_packed * sizeof(RecordHeader) + packed_bytes, block_bytes) +
      (records - with_packed) * block_bytes;
  return {records, packed_parts + bulk_blocks * block_bytes};
}

// What an item of these lengths adds to a checkpoint at most. The sum over all items, and one
// checkpoint_unit(), is never less than the checkpoint takes: so reservations made item by item
// suffice, whatever is put together.
//   packed parts: 152 header bytes for each 65384, so 1 in 430;
//   bulk parts: one header block for each MiB.
constexpr std::uint64_t checkpoint_cost(std::uint64_t packed_bytes, std::uint64_t bulk_blocks,
                                        std::uint64_t block_bytes) {
  constexpr std::uint64_t kPackedPerHeaderByte = kMaxRecordPackedBytes / sizeof(RecordHeader);
  return packed_bytes + div_round_up(packed_bytes, kPackedPerHeaderByte) +
         bulk_blocks * block_bytes +
         div_round_up(bulk_blocks * block_bytes, kMaxRecordBulkBytes / block_bytes);
}
// What a checkpoint takes beyond its items: the last packed part's rounding, and a first record of
// either kind that is not full.
constexpr std::uint64_t checkpoint_unit(std::uint64_t block_bytes) { return 3 * block_bytes; }

}  // namespace keel::format
