// CheckpointItems: the two streams of one checkpoint, and the items that they make.
//
// I1 The packed stream is copied, as its units cross records. The bulk stream is not: a region
//    points into the memory that add_bulk() was given, and is copied only if its blocks do not
//    follow each other there.
// I2 Both copies together take no more memory than the checkpoint has bytes and 4 MiB.
// I3 Every length is checked before it is used: the streams are hostile, though their hashes were
//    right.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/base/metadata_allocator.h"
#include "keel/base/result.h"
#include "keel/cil/recovery.h"
#include "log/read_buffer.h"

namespace keel {

class CheckpointItems {
 public:
  explicit CheckpointItems(std::uint32_t block_bytes) : block_bytes_(block_bytes) {}

  // Begins a checkpoint of so many bytes and records.
  void begin(std::uint64_t checkpoint_bytes, std::uint32_t record_count);
  // The next bytes of each stream. `packed` is copied; `bulk` stays as long as items() are used.
  // Errors: kNoMemory.
  [[nodiscard]] Status add_packed(std::span<const std::byte> packed);
  [[nodiscard]] Status add_bulk(std::span<const std::byte> bulk);

  // Makes the items of both streams. nullptr, or why they are none. Errors: kNoMemory.
  [[nodiscard]] Result<const char*> parse();
  [[nodiscard]] std::span<const RecoveredItem> items() const { return items_; }

  // Of the copies.
  [[nodiscard]] Bytes buffer_bytes() const { return Bytes(packed_.bytes() + joined_.bytes()); }

 private:
  struct Counts;

  [[nodiscard]] const char* walk(Counts& counts, bool fill);
  [[nodiscard]] std::span<const std::byte> take_bulk(std::uint64_t bytes, Counts& counts,
                                                     bool fill);

  std::uint32_t block_bytes_;
  ReadBuffer packed_;
  std::uint64_t packed_bytes_ = 0;
  std::uint64_t most_packed_ = 0;  // that this checkpoint can have
  ReadBuffer joined_;              // regions whose blocks were apart
  MetadataVector<std::span<const std::byte>> bulk_;
  std::uint64_t bulk_bytes_ = 0;
  MetadataVector<RecoveredRegion> regions_;
  MetadataVector<RecoveredItem> items_;
};

}  // namespace keel
