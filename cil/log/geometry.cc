#include "log/geometry.h"

#include <cstring>

#include "log/hash.h"

namespace keel {
namespace {

template <class Struct>
std::uint64_t hash_of(Struct value) {
  value.hash = 0;
  return hash64(&value, sizeof value);
}

template <class Struct>
void encode_with(Struct& value, std::uint64_t magic, std::byte* block) {
  value.magic = magic;
  value.version = format::kVersion;
  value.struct_bytes = sizeof(Struct);
  value.hash = hash_of(value);
  std::memcpy(block, &value, sizeof value);
}

template <class Struct>
std::optional<Struct> decode_with(const std::byte* block, std::uint64_t magic) {
  Struct value;
  std::memcpy(&value, block, sizeof value);
  const bool valid = value.magic == magic && value.version == format::kVersion &&
                     value.struct_bytes == sizeof(Struct) && value.hash == hash_of(value);
  return valid ? std::optional(value) : std::nullopt;
}

bool is_block_multiple(const format::Superblock& superblock, std::uint64_t value) {
  return value % superblock.block_bytes == 0;
}

}  // namespace

void encode(format::Superblock superblock, std::byte* block) {
  encode_with(superblock, format::kSuperblockMagic, block);
}

void encode(format::StateSlot state, std::byte* block) {
  encode_with(state, format::kStateMagic, block);
}

std::optional<format::Superblock> decode_superblock(const std::byte* block,
                                                    std::uint64_t file_bytes) {
  const auto found = decode_with<format::Superblock>(block, format::kSuperblockMagic);
  if (!found || !is_power_of_two(found->block_bytes) ||
      found->block_bytes < format::kMinBlockBytes || found->block_bytes > format::kMaxBlockBytes) {
    return std::nullopt;
  }
  const bool consistent =
      found->file_bytes <= file_bytes && found->data_bytes <= found->file_bytes &&
      is_block_multiple(*found, found->data_bytes) &&
      found->data_bytes / found->block_bytes >= format::kMinDataBlocks &&
      geometry_of(*found).file_bytes() == found->file_bytes &&
      found->max_checkpoint_bytes / found->block_bytes >= format::kMinCheckpointBlocks &&
      found->max_checkpoint_bytes <= found->data_bytes / 4 &&
      is_block_multiple(*found, found->max_checkpoint_bytes);
  return consistent ? found : std::nullopt;
}

std::optional<format::StateSlot> decode_state(const std::byte* block,
                                              const format::Superblock& superblock) {
  const auto found = decode_with<format::StateSlot>(block, format::kStateMagic);
  if (!found || found->uuid != superblock.uuid) {
    return std::nullopt;
  }
  const bool consistent = found->incarnation != 0 && found->stable_lsn < format::kCountLimit &&
                          found->generation < format::kCountLimit &&
                          found->tail_predecessor.sequence < format::kCountLimit &&
                          found->tail_lsn <= found->stable_lsn &&
                          found->incarnation_start_lsn <= found->stable_lsn &&
                          found->stable_lsn - found->tail_lsn <= superblock.data_bytes &&
                          is_block_multiple(superblock, found->tail_lsn) &&
                          is_block_multiple(superblock, found->stable_lsn) &&
                          is_block_multiple(superblock, found->incarnation_start_lsn);
  return consistent ? found : std::nullopt;
}

}  // namespace keel
