// Each rule of superblocks and state slots broken alone, their hashes right.
#include "log/geometry.h"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "keel/cil/log_file.h"

using namespace keel;

namespace {

using format::StateSlot;
using format::Superblock;

constexpr std::uint32_t kBlock = 4096;
constexpr std::uint64_t kFar = std::uint64_t{1} << 62;

Superblock good_superblock() {
  Superblock good{};
  good.uuid = {1, 2, 3};
  good.block_bytes = kBlock;
  good.data_bytes = 64 * kBlock;
  good.file_bytes = 68 * kBlock;
  good.max_checkpoint_bytes = 16 * kBlock;
  return good;
}

StateSlot good_state() {
  StateSlot good{};
  good.uuid = good_superblock().uuid;
  good.generation = 1;
  good.incarnation = 1;
  good.tail_lsn = 10 * kBlock;
  good.incarnation_start_lsn = 15 * kBlock;
  good.stable_lsn = 20 * kBlock;
  return good;
}

bool is_valid(const Superblock& superblock, std::uint64_t file_bytes) {
  std::array<std::byte, kBlock> block{};
  encode(superblock, block.data());
  return decode_superblock(block.data(), file_bytes).has_value();
}

bool is_valid(const StateSlot& state) {
  std::array<std::byte, kBlock> block{};
  encode(state, block.data());
  return decode_state(block.data(), good_superblock()).has_value();
}

}  // namespace

TEST_CASE("a superblock that breaks one rule is none, though its hash is right") {
  const Superblock good = good_superblock();
  CHECK(is_valid(good, good.file_bytes));
  CHECK(is_valid(good, UINT64_MAX));
  CHECK_FALSE(is_valid(good, good.file_bytes - 1));
  const auto broken = [&good](auto change) {
    Superblock changed = good;
    change(changed);
    return !is_valid(changed, UINT64_MAX);
  };
  CHECK(broken([](Superblock& s) { s.block_bytes = 0; }));
  CHECK(broken([](Superblock& s) { s.block_bytes = 5000; }));
  CHECK(broken([](Superblock& s) {
    s.block_bytes = 2048;
    s.file_bytes = s.data_bytes + 4 * 2048;
  }));
  CHECK(broken([](Superblock& s) {
    s.block_bytes = 131072;
    s.data_bytes = std::uint64_t{64} * 131072;
    s.file_bytes = std::uint64_t{68} * 131072;
    s.max_checkpoint_bytes = std::uint64_t{16} * 131072;
  }));
  CHECK(broken([](Superblock& s) { s.file_bytes += kBlock; }));
  CHECK(broken([](Superblock& s) { s.file_bytes = s.data_bytes - kBlock; }));
  CHECK(broken([](Superblock& s) {
    s.data_bytes += 8;
    s.file_bytes += 8;
  }));
  CHECK(broken([](Superblock& s) {
    s.data_bytes -= kBlock;
    s.file_bytes -= kBlock;
    s.max_checkpoint_bytes = 8 * kBlock;
  }));
  CHECK(broken([](Superblock& s) { s.max_checkpoint_bytes = 0; }));
  CHECK(broken([](Superblock& s) { s.max_checkpoint_bytes = 3 * kBlock; }));  // no transaction
  CHECK_FALSE(broken([](Superblock& s) { s.max_checkpoint_bytes = 4 * kBlock; }));
  CHECK(broken([](Superblock& s) { s.max_checkpoint_bytes += kBlock; }));  // above a quarter
  CHECK(broken([](Superblock& s) { s.max_checkpoint_bytes -= 8; }));
}

TEST_CASE("a state that breaks one rule is none, though its hash is right") {
  const StateSlot good = good_state();
  CHECK(is_valid(good));
  const auto broken = [&good](auto change) {
    StateSlot changed = good;
    change(changed);
    return !is_valid(changed);
  };
  CHECK(broken([](StateSlot& s) { s.uuid[2] ^= 1; }));
  CHECK(broken([](StateSlot& s) { s.incarnation = 0; }));
  CHECK(broken([](StateSlot& s) { s.tail_lsn = s.stable_lsn + kBlock; }));
  CHECK(broken([](StateSlot& s) { s.incarnation_start_lsn = s.stable_lsn + kBlock; }));
  CHECK_FALSE(broken([](StateSlot& s) { s.stable_lsn = s.tail_lsn + 64 * kBlock; }));
  CHECK(broken([](StateSlot& s) { s.stable_lsn = s.tail_lsn + 65 * kBlock; }));  // beyond a lap
  CHECK(broken([](StateSlot& s) { s.tail_lsn += 8; }));
  CHECK(broken([](StateSlot& s) { s.stable_lsn += 8; }));
  CHECK(broken([](StateSlot& s) { s.incarnation_start_lsn += 8; }));
  CHECK(broken([](StateSlot& s) { s.generation = kFar; }));
  CHECK(broken([](StateSlot& s) { s.tail_predecessor.sequence = kFar; }));
  CHECK(broken([](StateSlot& s) {
    s.stable_lsn = kFar;
    s.tail_lsn = s.incarnation_start_lsn = kFar - kBlock;
  }));
  CHECK_FALSE(broken([](StateSlot& s) {
    s.stable_lsn = kFar - kBlock;
    s.tail_lsn = s.incarnation_start_lsn = kFar - 2 * kBlock;
  }));
}

TEST_CASE("a log's uuid is written as uuids are") {
  std::array<std::uint8_t, 16> uuid{};
  for (std::uint8_t i = 0; i < 16; ++i) {
    uuid[i] = static_cast<std::uint8_t>(i * 17);
  }
  CHECK(to_string(uuid) == "00112233-4455-6677-8899-aabbccddeeff");
}
