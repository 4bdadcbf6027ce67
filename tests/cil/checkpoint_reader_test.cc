// Each rule of FORMAT.md, "When a checkpoint counts", broken alone, with every other hash made
// right.
#include "log/checkpoint_reader.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "log/hash.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

namespace {

using Header = format::RecordHeader;
constexpr std::size_t kBlock = 4096;
constexpr std::size_t kData = 2 * kBlock;

// A log whose first checkpoint has two records; records[i] is the offset of record i in the file.
struct Forge {
  Forge() {
    LogWorld world({.size = Bytes(8U << 20)});
    Trace trace;
    Probe small(trace, 1), large(trace, 2);
    small.regions.assign(30, std::string(4000, 's'));
    large.regions = {std::string(5 * kBlock + 100, 'l')};
    auto journal = world.open();
    REQUIRE(journal->force(commit(*journal, {&small, &large}, 200000)).ok());
    original = world.disk.image(kLogPath);
    finish(journal);
    records = {kData, kData + bytes_of(header_at(original, kData))};
    REQUIRE(header_at(original, records[1]).record_count == 2);
    id = {header_at(original, kData).incarnation, 1, 0,
          header_at(original, kData).checkpoint_bytes};
  }

  static Header header_at(const SimContent& image, std::size_t offset) {
    Header header;
    std::memcpy(&header, image.data() + offset, sizeof header);
    return header;
  }
  static std::size_t bytes_of(const Header& header) {
    return format::record_bytes(header.packed_bytes, header.bulk_blocks, kBlock);
  }

  // What the reader says of the checkpoint after `change` of one record or (-1) both; "" if proven.
  std::string verdict(int record, const std::function<void(Header&)>& change,
                      bool chain_hashes = true, std::uint64_t most_bytes = 1U << 20) const {
    SimContent image = original;
    for (int i = 0; i < 2; ++i) {
      if (record == i || record == -1) {
        Header header = header_at(image, records[static_cast<std::size_t>(i)]);
        change(header);
        std::memcpy(image.data() + records[static_cast<std::size_t>(i)], &header, sizeof header);
      }
    }
    return judge(std::move(image), chain_hashes, most_bytes);
  }

  // As above, of a change of the packed stream's bytes.
  std::string verdict_of_packed(const std::function<void(std::byte*)>& change) const {
    SimContent image = original;
    change(image.data() + kData + sizeof(Header));
    return judge(std::move(image), true, 1U << 20);
  }

  std::string judge(SimContent image, bool chain_hashes, std::uint64_t most_bytes,
                    Lsn records_below = Lsn(UINT64_MAX)) const {
    Hasher record_hashes;
    for (std::size_t i = 0; i < 2; ++i) {
      Header header = header_at(image, records[i]);
      if (chain_hashes && i == 1) {
        header.checkpoint_hash = record_hashes.digest();
      }
      header.record_hash = 0;
      std::memcpy(image.data() + records[i], &header, sizeof header);
      const std::size_t bytes = std::min(bytes_of(header), image.size() - records[i]);
      header.record_hash = hash64(image.data() + records[i], bytes);
      std::memcpy(image.data() + records[i], &header, sizeof header);
      record_hashes.update(&header.record_hash, sizeof header.record_hash);
    }
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.set_image(kLogPath, image);
    auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
    REQUIRE(file.ok());
    auto reader = CheckpointReader::make(*file);
    REQUIRE(reader.ok());
    const auto outcome = reader->read({Lsn(0), {}, most_bytes, records_below});
    REQUIRE(outcome.ok());
    return outcome->proven ? "" : outcome->reason;
  }

  SimContent original;
  std::vector<std::size_t> records;
  format::CheckpointId id;
};

std::uint32_t& word(std::byte* packed, std::size_t offset) {
  return *reinterpret_cast<std::uint32_t*>(packed + offset);
}

}  // namespace

TEST_CASE("a record header that breaks one rule is refused for that rule") {
  const Forge forge;
  const auto first = [&](const std::function<void(Header&)>& change) {
    return forge.verdict(0, change);
  };
  const auto second = [&](const std::function<void(Header&)>& change) {
    return forge.verdict(1, change);
  };
  const auto both = [&](const std::function<void(Header&)>& change) {
    return forge.verdict(-1, change);
  };
  CHECK(first([](Header&) {}) == "");
  CHECK(first([](Header& h) { h.magic += 1; }) == "no record header");
  CHECK(first([](Header& h) { h.version = 2; }) == "no record header");
  CHECK(first([](Header& h) { h.header_bytes = 160; }) == "no record header");
  CHECK(first([](Header& h) { h.uuid[3] ^= 1; }) == "a record of another log");
  CHECK(second([](Header& h) { h.uuid[3] ^= 1; }) == "a record of another log");
  for (const int record : {0, 1}) {
    const auto place = [&](const std::function<void(Header&)>& change) {
      return forge.verdict(record, change);
    };
    CHECK(place([](Header& h) { h.lsn += kBlock; }) ==
          "a record of another place or an earlier lap");
    CHECK(place([](Header& h) { h.lsn += 2036 * kBlock; }) ==
          "a record of another place or an earlier lap");
    CHECK(place([](Header& h) { h.incarnation = 0; }) == "a record header out of bounds");
    CHECK(place([](Header& h) { h.packed_bytes = 65392; }) == "a record header out of bounds");
    CHECK(place([](Header& h) { h.bulk_blocks = 257; }) == "a record header out of bounds");
    CHECK(place([](Header& h) { h.record_index = 2; }) == "a record header out of bounds");
  }
  CHECK(first([](Header& h) { h.record_index = 1; }) == "not the first record of a checkpoint");
  CHECK(second([](Header& h) { h.record_index = 0; }) == "a record of another checkpoint");
  CHECK(both([](Header& h) { h.sequence = 2; }) == "a checkpoint that follows another one");
  CHECK(both([](Header& h) { h.predecessor.bytes = kBlock; }) ==
        "a checkpoint that follows another one");
  CHECK(both([](Header& h) { h.predecessor.incarnation = 1; }) ==
        "a checkpoint that follows another one");
  CHECK(both([](Header& h) { h.incarnation += 1; }) == "a leftover of an earlier incarnation");
  const std::string bounds = "a checkpoint length out of bounds";
  CHECK(both([](Header& h) { h.checkpoint_bytes = 0; }) == bounds);
  CHECK(both([](Header& h) { h.checkpoint_bytes += 8; }) == bounds);
  CHECK(both([](Header& h) { h.checkpoint_bytes = 3U << 20; }) == bounds);  // over max_checkpoint
  CHECK(both([](Header& h) { h.record_count = 1000; }) == bounds);
  CHECK(forge.verdict(
            0, [](Header&) {}, true, forge.id.bytes - kBlock) == CheckpointReader::kBeyondEnd);
  CHECK(forge.verdict(
            0, [](Header&) {}, true, forge.id.bytes) == "");
  // Every field that the records of a checkpoint share.
  const std::string other = "a record of another checkpoint";
  CHECK(second([](Header& h) { h.sequence += 1; }) == other);
  CHECK(second([](Header& h) { h.incarnation += 1; }) == other);
  CHECK(second([](Header& h) { h.checkpoint_bytes += kBlock; }) == other);
  CHECK(second([](Header& h) { h.item_count += 1; }) == other);
  CHECK(second([](Header& h) { h.predecessor.sequence += 1; }) == other);
  CHECK(second([](Header& h) { h.record_count += 1; }) == other);
  CHECK(both([](Header& h) { h.checkpoint_bytes += kBlock; }) ==
        "records that do not fill their checkpoint");
  CHECK(both([](Header& h) { h.checkpoint_bytes -= kBlock; }) ==
        "records that exceed their checkpoint");
  CHECK(both([](Header& h) { h.item_count += 1; }) == "an item count that is wrong");
  const std::string hash = "a checkpoint whose hash is wrong";
  CHECK(forge.verdict(
            1, [](Header& h) { h.checkpoint_hash += 1; }, false) == hash);
  CHECK(first([](Header& h) { h.checkpoint_hash = 1; }) == hash);
  // Record 0 replaced by another good one: only the hash over both tells.
  CHECK(forge.verdict(
            0, [](Header& h) { h.tail_lsn += kBlock; }, false) == hash);
  CHECK(first([](Header& h) { h.tail_lsn += kBlock; }) == "");
}

TEST_CASE("items and regions that break one rule are refused for that rule") {
  const Forge forge;
  const auto packed = [&](std::size_t offset, std::uint32_t value) {
    return forge.verdict_of_packed([=](std::byte* bytes) { word(bytes, offset) = value; });
  };
  // Item: type, region_count; its first region: bulk_blocks, rest_bytes.
  CHECK(packed(0, 17) == "");
  CHECK(packed(0, 0) == "an item header out of bounds");
  CHECK(packed(4, 0) == "an item header out of bounds");
  CHECK(packed(12, 4096) == "a region out of bounds");
  CHECK(packed(12, UINT32_MAX) == "a region out of bounds");
  CHECK(packed(8, 6) == "a region out of bounds");
  CHECK(packed(8, UINT32_MAX) == "a region out of bounds");
  CHECK(packed(8, 1) == "a region out of bounds");  // then the large item has too few
  // The 31st region of the first item is the second item; then things do not come out even.
  CHECK_FALSE(packed(4, 31) == "");
  CHECK_FALSE(packed(4, 29) == "");
  CHECK_FALSE(packed(4, UINT32_MAX) == "");
  // One item less is parsed if the packed bytes end early; its bulk blocks are then nobody's.
  CHECK(forge.verdict(1, [](Header& h) { h.packed_bytes -= 120; }) ==
        "bulk blocks that belong to no region");
  CHECK(forge.verdict(1, [](Header& h) { h.packed_bytes -= 116; }) ==
        "an item header that is cut off");
  CHECK(forge.verdict(1, [](Header& h) { h.packed_bytes -= 112; }) ==
        "a region header that is cut off");
  CHECK(forge.verdict(1, [](Header& h) { h.packed_bytes -= 8; }) == "a region out of bounds");
}

TEST_CASE("each record of a checkpoint must begin below the reach, the last one too") {
  const Forge forge;
  const Lsn second(forge.records[1] - kData);
  const auto judge = [&](Lsn below) { return forge.judge(forge.original, true, 1U << 20, below); };
  CHECK(judge(second + Bytes(kBlock)) == "");
  CHECK(judge(second) == "a record beyond where the newest state lets the log reach");
  CHECK(judge(Lsn(0)) == "a record beyond where the newest state lets the log reach");
}

TEST_CASE("a header is read wherever it stands, also where nothing was read ahead, and again") {
  const Forge forge;
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, forge.original);
  auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  auto reader = CheckpointReader::make(*file, {kBlock, 0, 0});
  REQUIRE(reader.ok());
  const Lsn second(forge.records[1] - kData);
  for (const Lsn lsn : {second, Lsn(0), second, second + Bytes(kBlock), Lsn(0), second}) {
    const auto header = reader->read_header(lsn);
    REQUIRE(header.ok());
    CHECK(header->has_value() == (lsn == Lsn(0) || lsn == second));
    if (header->has_value()) {
      CHECK((*header)->record_index == (lsn == second ? 1 : 0));
    }
  }
}

TEST_CASE(
    "a region that is in two pieces needs memory, without it the checkpoint can be read again") {
  const Forge forge;
  class DryDisk : public SimDisk {
   public:
    int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
             std::uint64_t offset, void** out) override {
      if (bytes == refused_bytes) {
        ++refused;
        return -ENOMEM;
      }
      return SimDisk::mmap(address, bytes, protection, flags, fd, offset, out);
    }
    std::size_t refused_bytes = 0;
    int refused = 0;
  };
  DryDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, forge.original);
  auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  // Blocks are read one by one, so that no region of several is in one piece.
  auto reader = CheckpointReader::make(*file, {kBlock, 0, 0});
  REQUIRE(reader.ok());
  for (const std::size_t bytes : {5 * kBlock, std::size_t{0}}) {
    disk.refused_bytes = bytes;
    const auto outcome = reader->read({Lsn(0), {}, 1U << 20, Lsn(UINT64_MAX)});
    CHECK(disk.refused == 1);
    REQUIRE(outcome.ok() == (bytes == 0));
    if (!outcome.ok()) {
      CHECK(outcome.error().code == Errc::kNoMemory);
      CHECK(outcome.error().value == bytes);
      continue;
    }
    CHECK(outcome->proven);
    const auto bulk = reader->checkpoint().items[1].regions()[0].bulk;
    CHECK(bulk.size() == 5 * kBlock);
    CHECK(std::all_of(bulk.begin(), bulk.end(), [](std::byte b) { return b == std::byte{'l'}; }));
  }
}
