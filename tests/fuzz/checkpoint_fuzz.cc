// A checkpoint's two streams -> items, against a second parser: directly, and as records of a log
// with right hashes. The input is the packed stream; how it is cut, and the bulk blocks, come
// before it.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "fuzz_log.h"
#include "keel/alloc/pool.h"
#include "keel/base/units.h"
#include "log/chain_reader.h"
#include "log/checkpoint_items.h"
#include "log/geometry.h"
#include "log/hash.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

constexpr std::size_t kMostBulkBlocks = 40;

struct Streams {
  std::vector<std::byte> packed;
  std::size_t bulk_blocks = 0;
  std::vector<std::size_t> cuts;  // blocks of each piece of the bulk stream
};

using Regions = std::vector<std::string>;
struct Item {
  std::uint32_t type;
  Regions regions;
  bool operator==(const Item&) const = default;
};

// Byte i of the bulk stream.
std::byte bulk_byte(std::size_t i) { return static_cast<std::byte>(i / kBlock * 7 + i % 251); }

// FORMAT.md, "The packed stream". False: it is not one.
bool parse_plainly(const Streams& streams, std::vector<Item>& items) {
  std::size_t at = 0, block = 0;
  const auto word = [&](std::uint32_t& value) {
    if (streams.packed.size() - at < 4) {
      return false;
    }
    std::memcpy(&value, streams.packed.data() + at, 4);
    at += 4;
    return true;
  };
  while (at < streams.packed.size()) {
    std::uint32_t type = 0, count = 0;
    if (!word(type) || !word(count) || type == 0 || count == 0) {
      return false;
    }
    Item item{type, {}};
    for (std::uint32_t i = 0; i < count; ++i) {
      std::uint32_t blocks = 0, rest = 0;
      if (!word(blocks) || !word(rest) || blocks > streams.bulk_blocks - block || rest >= kBlock ||
          (rest + 7) / 8 * 8 > streams.packed.size() - at) {
        return false;
      }
      std::string bytes;
      for (std::size_t b = 0; b < blocks * std::size_t{kBlock}; ++b) {
        bytes += static_cast<char>(bulk_byte(block * kBlock + b));
      }
      bytes.append(reinterpret_cast<const char*>(streams.packed.data()) + at, rest);
      at += (rest + 7) / 8 * 8;
      block += blocks;
      item.regions.push_back(std::move(bytes));
    }
    items.push_back(std::move(item));
  }
  return block == streams.bulk_blocks;
}

std::vector<Item> copy_of(std::span<const RecoveredItem> found) {
  std::vector<Item> items;
  for (const RecoveredItem& from : found) {
    Item item{from.type(), {}};
    for (const RecoveredRegion& region : from.regions()) {
      std::string bytes(region.size_bytes(), '\0');
      FUZZ_CHECK(region.copy_to(bytes.data(), bytes.size()) == bytes.size());
      item.regions.push_back(std::move(bytes));
    }
    items.push_back(std::move(item));
  }
  return items;
}

Streams read_streams(FuzzInput& input) {
  Streams streams;
  streams.bulk_blocks = input.u8() % kMostBulkBlocks;
  for (std::size_t cut = 0, left = streams.bulk_blocks; left > 0; left -= cut) {
    cut = std::min<std::size_t>(left, 1 + input.u8() % 16);
    streams.cuts.push_back(cut);
  }
  const auto packed = input.bytes(std::size_t{1} << 16);
  streams.packed.resize(round_up(packed.size(), std::size_t{8}));
  std::copy(packed.begin(), packed.end(), reinterpret_cast<std::uint8_t*>(streams.packed.data()));
  return streams;
}

// Straight into CheckpointItems, in pieces that are apart in memory.
void parse_directly(const Streams& streams, bool sound, const std::vector<Item>& expected) {
  CheckpointItems parser(kBlock);
  std::vector<std::unique_ptr<std::byte[]>> pieces;
  for (int round = 0; round < 2; ++round) {  // its buffers are used again
    const std::uint32_t records =
        1 + static_cast<std::uint32_t>(streams.packed.size() / format::kMaxRecordPackedBytes);
    parser.begin(std::uint64_t{1} << 20, records);
    for (std::size_t at = 0; at < streams.packed.size();) {
      const std::size_t now = std::min<std::size_t>(streams.packed.size() - at, 8 * (1 + at % 513));
      FUZZ_CHECK(parser.add_packed(std::span(streams.packed).subspan(at, now)).ok());
      at += now;
    }
    std::size_t block = 0;
    for (const std::size_t cut : streams.cuts) {
      pieces.push_back(std::make_unique<std::byte[]>(cut * kBlock));
      for (std::size_t i = 0; i < cut * kBlock; ++i) {
        pieces.back()[i] = bulk_byte(block * kBlock + i);
      }
      block += cut;
      FUZZ_CHECK(parser.add_bulk({pieces.back().get(), cut * kBlock}).ok());
    }
    const auto reason = parser.parse();
    FUZZ_CHECK(reason.ok());
    FUZZ_CHECK((*reason == nullptr) == sound);
    if (sound) {
      FUZZ_CHECK(copy_of(parser.items()) == expected);
      RecoveredCheckpoint checkpoint;
      checkpoint.items = parser.items();
      (void)check_checkpoint(checkpoint);
    }
  }
}

// As one checkpoint at the start of a log.
SimContent make_log(const Streams& streams, std::uint64_t item_count, std::uint64_t& end) {
  constexpr std::uint64_t kDataBlocks = 512;
  format::Superblock superblock{};
  superblock.uuid.fill(3);
  superblock.block_bytes = kBlock;
  superblock.data_bytes = kDataBlocks * kBlock;
  superblock.file_bytes = (kDataBlocks + 4) * kBlock;
  superblock.max_checkpoint_bytes = kDataBlocks / 4 * kBlock;
  format::StateSlot state{};
  state.uuid = superblock.uuid;
  state.generation = 1;
  state.incarnation = 77;
  SimContent image(superblock.file_bytes);
  const Geometry geometry = geometry_of(superblock);
  format::RecordHeader header{};
  header.magic = format::kRecordMagic;
  header.version = format::kVersion;
  header.header_bytes = sizeof header;
  header.uuid = superblock.uuid;
  header.incarnation = state.incarnation;
  header.sequence = 1;
  header.item_count = item_count;
  // The bulk blocks all fit into the first record; the packed stream may need two.
  header.record_count = static_cast<std::uint32_t>(std::max<std::size_t>(
      1,
      (streams.packed.size() + format::kMaxRecordPackedBytes - 1) / format::kMaxRecordPackedBytes));
  std::uint64_t lsn = 0;
  for (int pass = 0; pass < 2; ++pass) {  // the length first
    header.checkpoint_bytes = lsn;
    lsn = 0;
    for (std::uint32_t i = 0; i < header.record_count; ++i) {
      const std::size_t from = i * format::kMaxRecordPackedBytes;
      const std::size_t packed =
          std::min<std::size_t>(streams.packed.size() - from, format::kMaxRecordPackedBytes);
      header.lsn = lsn;
      header.record_index = i;
      header.packed_bytes = static_cast<std::uint32_t>(packed);
      header.bulk_blocks = static_cast<std::uint32_t>(i == 0 ? streams.bulk_blocks : 0);
      std::byte* place = image.data() + 2 * kBlock + lsn;
      std::memcpy(place, &header, sizeof header);
      if (packed > 0) {
        std::memcpy(place + sizeof header, streams.packed.data() + from, packed);
      }
      const std::uint64_t head = round_up(sizeof header + packed, std::uint64_t{kBlock});
      for (std::size_t b = 0; i == 0 && b < streams.bulk_blocks * kBlock; ++b) {
        place[head + b] = bulk_byte(b);
      }
      lsn += head + std::uint64_t{header.bulk_blocks} * kBlock;
    }
  }
  end = lsn;
  state.stable_lsn = lsn;
  encode(superblock, image.data());
  encode(superblock, image.data() + geometry.superblock_offset(1));
  encode(state, image.data() + geometry.state_offset(0));
  encode(state, image.data() + geometry.state_offset(1));
  repair_records(image);
  return image;
}

void read_from_log(const Streams& streams, bool sound, const std::vector<Item>& expected,
                   std::size_t chunk_blocks, std::uint64_t wrong_count) {
  std::uint64_t end = 0;
  install(make_log(streams, expected.size() + wrong_count, end));
  auto file = LogFile::open(kImagePath, DeviceMode::kReadOnly, false, default_pool());
  FUZZ_CHECK(file.ok());
  auto chain =
      ChainReader::make(*file, {.chunk_bytes = chunk_blocks * kBlock, .depth = 1, .threads = 0});
  FUZZ_CHECK(chain.ok());
  const auto outcome = chain->next(Lsn(end));
  FUZZ_CHECK(outcome.ok());
  FUZZ_CHECK(outcome->proven == (sound && wrong_count == 0));
  if (outcome->proven) {
    FUZZ_CHECK(copy_of(chain->checkpoint().items) == expected);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  (void)fuzz_disk();
  FuzzInput input(data, bytes);
  const std::uint8_t way = input.u8();
  const Streams streams = read_streams(input);
  std::vector<Item> expected;
  const bool sound = parse_plainly(streams, expected);
  parse_directly(streams, sound, expected);
  if (way >= 128) {
    read_from_log(streams, sound, expected, 1 + way % 8, way % 16 == 0 ? 1 : 0);
  }
  return 0;
}
