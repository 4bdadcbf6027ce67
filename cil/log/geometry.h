// Where things stand in a log file, and the superblock and state slots as bytes.
//
// Pure functions over memory: no I/O here. What they accept has every bound checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "keel/base/units.h"
#include "log/format.h"

namespace keel {

struct Geometry {
  std::uint32_t block_bytes;
  std::uint64_t data_bytes;

  [[nodiscard]] std::uint64_t data_offset() const {
    return format::kBlocksBeforeData * block_bytes;
  }
  [[nodiscard]] std::uint64_t file_bytes() const {
    return data_bytes + (format::kBlocksBeforeData + format::kBlocksAfterData) * block_bytes;
  }
  // Offsets in the file of both copies of what is kept twice.
  [[nodiscard]] std::uint64_t superblock_offset(int copy) const {
    return copy == 0 ? 0 : file_bytes() - block_bytes;
  }
  [[nodiscard]] std::uint64_t state_offset(int slot) const {
    return slot == 0 ? block_bytes : file_bytes() - 2 * std::uint64_t{block_bytes};
  }
  // Offset in the file of the byte at `lsn`.
  [[nodiscard]] std::uint64_t offset_of(Lsn lsn) const {
    return data_offset() + lsn.value() % data_bytes;
  }
  // Bytes from `lsn` to the place where the data area wraps.
  [[nodiscard]] std::uint64_t bytes_to_wrap(Lsn lsn) const {
    return data_bytes - lsn.value() % data_bytes;
  }
};

// Fills in magic, version, size and hash, and writes the struct to the start of a zeroed block.
void encode(format::Superblock superblock, std::byte* block);
void encode(format::StateSlot state, std::byte* block);

// nullopt if the bytes at `block` are not a valid one. The superblock's fields are then consistent
// with each other and with `file_bytes`, the true size of the file.
[[nodiscard]] std::optional<format::Superblock> decode_superblock(const std::byte* block,
                                                                  std::uint64_t file_bytes);
[[nodiscard]] std::optional<format::StateSlot> decode_state(const std::byte* block,
                                                            const format::Superblock& superblock);

[[nodiscard]] inline Geometry geometry_of(const format::Superblock& superblock) {
  return {superblock.block_bytes, superblock.data_bytes};
}

}  // namespace keel
