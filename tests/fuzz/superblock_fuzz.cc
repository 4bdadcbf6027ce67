// Superblocks and state slots, against FORMAT.md's rules written down a second time.
#include <algorithm>
#include <array>
#include <optional>

#include "fuzz_log.h"
#include "keel/alloc/pool.h"
#include "log/geometry.h"
#include "log/hash.h"
#include "log/log_file.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

__extension__ using Wide = unsigned __int128;  // no sum or product wraps

template <class Struct>
bool has_right_hash(Struct value) {
  const std::uint64_t hash = value.hash;
  value.hash = 0;
  return hash == hash64(&value, sizeof value);
}

bool is_sound(const format::Superblock& block, std::uint64_t file_bytes) {
  const bool known = std::memcmp(&block.magic, "KEELLOG1", 8) == 0 && block.version == 1 &&
                     block.struct_bytes == 80 && has_right_hash(block);
  const std::array<std::uint32_t, 5> sizes{4096, 8192, 16384, 32768, 65536};
  if (!known || std::find(sizes.begin(), sizes.end(), block.block_bytes) == sizes.end()) {
    return false;
  }
  const Wide size = block.block_bytes;
  return block.data_bytes % size == 0 && block.data_bytes / size >= 64 &&
         block.max_checkpoint_bytes % size == 0 && block.max_checkpoint_bytes / size >= 4 &&
         Wide{block.max_checkpoint_bytes} * 4 <= block.data_bytes &&
         Wide{block.file_bytes} == Wide{block.data_bytes} + 4 * size &&
         block.file_bytes <= file_bytes;
}

bool is_sound(const format::StateSlot& state, const format::Superblock& of) {
  const std::uint64_t most = std::uint64_t{1} << 62;
  return std::memcmp(&state.magic, "KEELSTA1", 8) == 0 && state.version == 1 &&
         state.struct_bytes == 120 && state.uuid == of.uuid && has_right_hash(state) &&
         state.incarnation != 0 && state.tail_lsn % of.block_bytes == 0 &&
         state.stable_lsn % of.block_bytes == 0 &&
         state.incarnation_start_lsn % of.block_bytes == 0 && state.tail_lsn <= state.stable_lsn &&
         state.incarnation_start_lsn <= state.stable_lsn &&
         state.stable_lsn - state.tail_lsn <= of.data_bytes && state.stable_lsn < most &&
         state.generation < most && state.tail_predecessor.sequence < most;
}

// What stands in the file.
struct Parts {
  std::array<format::Superblock, 2> superblocks{};
  std::array<format::StateSlot, 2> states{};
  std::uint64_t file_bytes = 0;
};

constexpr std::uint64_t kMostFileBytes = std::uint64_t{64} << 20;

Parts read_parts(FuzzInput& input, std::uint8_t mode) {
  Parts parts;
  format::Superblock superblock{};
  superblock.uuid.fill(7);
  superblock.block_bytes = 4096U << (mode % 5);
  superblock.data_bytes = std::uint64_t{superblock.block_bytes} * (256 + input.u8());
  superblock.file_bytes = superblock.data_bytes + 4 * std::uint64_t{superblock.block_bytes};
  superblock.max_checkpoint_bytes = std::uint64_t{superblock.block_bytes} * (4 + input.u8() % 64);
  format::StateSlot state{};
  state.uuid = superblock.uuid;
  state.generation = 5;
  state.incarnation = 9;
  state.stable_lsn = std::uint64_t{superblock.block_bytes} * input.u8();
  parts.superblocks = {superblock, superblock};
  parts.states = {state, state};
  parts.states[1].generation = 4;
  parts.file_bytes = superblock.file_bytes;
  const auto bytes_of = [](auto& value) { return reinterpret_cast<std::byte*>(&value); };
  const auto encode_all = [&] {
    for (auto& each : parts.superblocks) {
      encode(each, bytes_of(each));
    }
    for (auto& each : parts.states) {
      encode(each, bytes_of(each));
    }
  };
  encode_all();
  while (!input.empty()) {
    switch (input.u8() % 8) {
      case 0: change_field(input, bytes_of(parts.superblocks[0]), sizeof superblock); break;
      case 1: change_field(input, bytes_of(parts.superblocks[1]), sizeof superblock); break;
      case 2: change_field(input, bytes_of(parts.states[0]), sizeof state); break;
      case 3: change_field(input, bytes_of(parts.states[1]), sizeof state); break;
      case 4: change_field(input, bytes_of(parts.file_bytes), sizeof parts.file_bytes); break;
      case 5: parts.superblocks[1] = parts.superblocks[0]; break;
      case 6: parts.states[input.u8() % 2].generation = input.u8(); break;
      default: encode_all(); break;
    }
  }
  if (mode < 192) {
    encode_all();
  }
  parts.file_bytes %= kMostFileBytes;
  return parts;
}

void write_file(const Parts& parts, std::uint64_t block) {
  SimDisk& disk = fuzz_disk();
  install({});
  const int fd = disk.open(kImagePath, O_RDWR, 0600);
  FUZZ_CHECK(fd >= 0 && disk.ftruncate(fd, parts.file_bytes) == 0);
  const auto put = [&](std::uint64_t offset, auto value) {
    if (offset + sizeof value <= parts.file_bytes) {
      struct iovec part {
        &value, sizeof value
      };
      FUZZ_CHECK(disk.pwritev2(fd, &part, 1, offset, 0) > 0);
    }
  };
  put(0, parts.superblocks[0]);
  put(block, parts.states[0]);
  const std::uint64_t end = parts.file_bytes / block * block;
  if (end >= 4 * block) {
    put(end - 2 * block, parts.states[1]);
    put(end - block, parts.superblocks[1]);
  }
  FUZZ_CHECK(disk.close(fd) == 0);
  disk.clear_io_log();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  (void)fuzz_disk();
  FuzzInput input(data, bytes);
  const std::uint8_t mode = input.u8();
  const Parts parts = read_parts(input, mode);
  std::array<std::byte, 4096> block{};
  const auto as_block = [&block](const auto& value) {
    std::memcpy(block.data(), &value, sizeof value);
    return block.data();
  };
  for (const format::Superblock& superblock : parts.superblocks) {
    const auto found = decode_superblock(as_block(superblock), parts.file_bytes);
    FUZZ_CHECK(found.has_value() == is_sound(superblock, parts.file_bytes));
    if (!found) {
      continue;
    }
    for (const format::StateSlot& state : parts.states) {
      FUZZ_CHECK(decode_state(as_block(state), *found).has_value() == is_sound(state, *found));
    }
  }
  write_file(parts, 4096U << (mode % 5));
  const auto file =
      LogFile::open(kImagePath, DeviceMode::kReadOnly, (mode & 32U) != 0, default_pool());
  FUZZ_CHECK(was_only_read());
  if (!file) {
    const Errc code = file.error().code;
    FUZZ_CHECK(code == Errc::kNotALog || code == Errc::kBadVersion || code == Errc::kDamaged);
    return 0;
  }
  FUZZ_CHECK(is_sound(file->superblock(), parts.file_bytes));
  FUZZ_CHECK(is_sound(file->state(), file->superblock()));
  const LogInfo info = file->info();
  FUZZ_CHECK(info.valid_superblocks >= 1 && info.valid_superblocks <= 2);
  FUZZ_CHECK(info.valid_states >= 1 && info.valid_states <= 2);
  for (const std::uint64_t offset :
       {file->geometry().state_offset(0), file->geometry().state_offset(1),
        file->geometry().superblock_offset(1),
        file->geometry().offset_of(Lsn(file->state().stable_lsn))}) {
    FUZZ_CHECK(offset + file->superblock().block_bytes <= parts.file_bytes);
  }
  return 0;
}
