// The on-disk format: its bytes as FORMAT.md has them, and checkpoints written and read back.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "log/checkpoint_reader.h"
#include "log/checkpoint_writer.h"
#include "log/format.h"
#include "log/hash.h"
#include "probe.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

std::string text_of(std::uint64_t magic) {
  return std::string(reinterpret_cast<const char*>(&magic), sizeof magic);
}

// A log file and what writes and reads checkpoints in it.
struct Bench {
  explicit Bench(Bytes size) : world({.size = size}) {
    auto opened = LogFile::open(kLogPath, DeviceMode::kReadWrite, false, default_pool());
    REQUIRE(opened.ok());
    file = std::make_unique<LogFile>(std::move(*opened));
    auto made = CheckpointWriter::make(*file, IoMode::kAuto, default_pool());
    REQUIRE(made.ok());
    writer = std::move(*made);
    auto made_reader = CheckpointReader::make(*file);
    REQUIRE(made_reader.ok());
    reader = std::make_unique<CheckpointReader>(std::move(*made_reader));
  }

  // Formats the items, writes them as one checkpoint at `start`, reads it back and compares.
  void round_trip(const std::vector<FoundItem>& items, Lsn start) {
    const std::uint32_t block = file->geometry().block_bytes;
    Trace trace;
    std::vector<std::unique_ptr<Probe>> probes;
    ClosedCheckpoint checkpoint;
    LogVector** end = &checkpoint.first;
    for (const FoundItem& item : items) {
      probes.push_back(std::make_unique<Probe>(trace, item.type - 16));
      ItemSize size(block);
      for (const std::string& region : item.regions) {
        size.region(region.size());
      }
      LogVector* vector = allocate_log_vector(default_pool(), layout_of(size), block);
      REQUIRE(vector != nullptr);
      SnapshotWriter snapshot(*vector, layout_of(size));
      ItemFormatter formatter(snapshot);
      for (const std::string& region : item.regions) {
        formatter.copy(region.data(), region.size());
      }
      snapshot.finish(probes.back()->type());
      vector->item = probes.back().get();
      checkpoint.packed_bytes += vector->packed_bytes;
      checkpoint.bulk_blocks += vector->bulk_blocks;
      checkpoint.item_count += vector->packed_bytes != 0 ? 1U : 0U;
      *end = vector;
      end = &vector->next;
    }
    const auto shape =
        format::checkpoint_shape(checkpoint.packed_bytes, checkpoint.bulk_blocks, block);
    checkpoint.predecessor = {1, 41, start.value() - 4096, 4096};
    checkpoint.id = {file->state().incarnation, 42, start.value(), shape.bytes};
    checkpoint.tail = checkpoint.stable = start;
    REQUIRE(writer->write(checkpoint).ok());
    while (checkpoint.first != nullptr) {
      default_pool().kvfree(std::exchange(checkpoint.first, checkpoint.first->next));
    }
    // A fresh reader: the old one may have the bytes before in its window.
    auto fresh = CheckpointReader::make(*file);
    REQUIRE(fresh.ok());
    reader = std::make_unique<CheckpointReader>(std::move(*fresh));
    const auto outcome = reader->read({start, checkpoint.predecessor, file->geometry().data_bytes});
    REQUIRE(outcome.ok());
    CAPTURE(std::string(outcome->reason));
    REQUIRE(outcome->proven);
    CHECK(outcome->id == checkpoint.id);
    Found found;
    REQUIRE(collect_into(found)(reader->checkpoint()).ok());
    std::vector<FoundItem> written;
    for (const FoundItem& item : items) {
      if (!item.regions.empty()) {
        written.push_back(item);
      }
    }
    REQUIRE(found == Found{{42, written}});
  }

  LogWorld world;
  std::unique_ptr<LogFile> file;
  std::unique_ptr<CheckpointWriter> writer;
  std::unique_ptr<CheckpointReader> reader;
};

std::vector<FoundItem> random_items(std::uint64_t& random, std::size_t count, std::size_t longest) {
  std::vector<FoundItem> items(count);
  for (FoundItem& item : items) {
    item.type = 16 + static_cast<std::uint32_t>(sim_random(random) % 1000);
    item.regions.resize(sim_random(random) % 6);
    for (std::string& region : item.regions) {
      const std::uint64_t draw = sim_random(random);
      const std::size_t lengths[] = {0, draw % 8, draw % 300, 4095, 4096, 4104, draw % longest};
      region = random_bytes(draw, std::min<std::size_t>(lengths[draw / 65536 % 7], longest));
    }
  }
  return items;
}

}  // namespace

TEST_CASE("magic numbers are text in the file, and every field stands where FORMAT.md says") {
  CHECK(text_of(format::kSuperblockMagic) == "KEELLOG1");
  CHECK(text_of(format::kStateMagic) == "KEELSTA1");
  CHECK(text_of(format::kRecordMagic) == "KEELREC1");
  CHECK(offsetof(format::Superblock, uuid) == 16);
  CHECK(offsetof(format::Superblock, block_bytes) == 32);
  CHECK(offsetof(format::Superblock, file_bytes) == 40);
  CHECK(offsetof(format::Superblock, max_checkpoint_bytes) == 56);
  CHECK(offsetof(format::Superblock, hash) == 72);
  CHECK(offsetof(format::StateSlot, generation) == 32);
  CHECK(offsetof(format::StateSlot, incarnation_start_lsn) == 48);
  CHECK(offsetof(format::StateSlot, tail_predecessor) == 64);
  CHECK(offsetof(format::StateSlot, stable_lsn) == 96);
  CHECK(offsetof(format::StateSlot, hash) == 112);
  CHECK(offsetof(format::RecordHeader, incarnation) == 32);
  CHECK(offsetof(format::RecordHeader, checkpoint_bytes) == 56);
  CHECK(offsetof(format::RecordHeader, predecessor) == 72);
  CHECK(offsetof(format::RecordHeader, record_index) == 120);
  CHECK(offsetof(format::RecordHeader, bulk_blocks) == 132);
  CHECK(offsetof(format::RecordHeader, checkpoint_hash) == 136);
  CHECK(offsetof(format::RecordHeader, record_hash) == 144);
  CHECK(format::kMaxRecordPackedBytes == 65384);
}

TEST_CASE("the hash is XXH3, 64 bit, in one piece or many") {
  CHECK(hash64("", 0) == 0x2d06800538d394c2ULL);
  std::uint64_t random = 1;
  const std::string bytes = random_bytes(7, 100000);
  for (std::size_t length : {1U, 8U, 240U, 241U, 1000U, 100000U}) {
    Hasher hasher;
    for (std::size_t at = 0; at < length;) {
      const std::size_t now = std::min<std::size_t>(length - at, 1 + sim_random(random) % 5000);
      hasher.update(bytes.data() + at, now);
      at += now;
    }
    CHECK(hasher.digest() == hash64(bytes.data(), length));
  }
}

TEST_CASE("a new log's file is what FORMAT.md says, byte for byte, outside of random fields") {
  LogWorld world;
  const SimContent image = world.disk.image(kLogPath);
  REQUIRE(image.size() == kMinLogBytes.value());
  format::Superblock first{}, second{};
  std::memcpy(&first, image.data(), sizeof first);
  std::memcpy(&second, image.data() + image.size() - 4096, sizeof second);
  CHECK(std::memcmp(&first, &second, sizeof first) == 0);
  CHECK(first.version == 1);
  CHECK(first.block_bytes == 4096);
  CHECK(first.file_bytes == image.size());
  CHECK(first.data_bytes == image.size() - 4 * 4096);
  CHECK(first.max_checkpoint_bytes == first.data_bytes / 4);
  format::StateSlot state{};
  std::memcpy(&state, image.data() + 4096, sizeof state);
  CHECK(std::memcmp(&state, image.data() + image.size() - 2 * 4096, sizeof state) == 0);
  CHECK(state.generation == 1);
  CHECK(state.flags == format::kStateClean);
  CHECK(state.incarnation != 0);
  const auto zero = [](std::byte byte) { return byte == std::byte{0}; };
  CHECK(std::all_of(image.begin() + 2 * 4096, image.end() - 2 * 4096, zero));
  CHECK(std::all_of(image.begin() + 80, image.begin() + 4096, zero));
  CHECK(std::all_of(image.begin() + 4096 + 120, image.begin() + 2 * 4096, zero));
}

TEST_CASE("a checkpoint reads back the same wherever it wraps") {
  Bench bench(kMinLogBytes);
  std::uint64_t random = test_seed("wrap", 21);
  const std::uint64_t blocks = bench.file->geometry().data_bytes / 4096;
  const std::vector<FoundItem> items = random_items(random, 30, 8000);
  for (std::uint64_t at = 0; at < blocks; ++at) {
    CAPTURE(at);
    bench.round_trip(items, Lsn((7 * blocks + at) * 4096));
  }
}

TEST_CASE("checkpoints of any items read back the same") {
  Bench bench(Bytes(96U << 20));
  std::uint64_t random = test_seed("round trip", 22);
  const std::uint64_t log_bytes = bench.file->geometry().data_bytes;
  Lsn start(log_bytes - 4096 * 100);
  for (std::uint64_t round = 0; round < test_rounds(60, 10); ++round) {
    CAPTURE(round);
    const std::size_t kinds[] = {0, 1, 10, 5000};
    const std::size_t count = kinds[round % 4];
    const std::size_t longest = count == 1 ? 12U << 20 : count == 10 ? 3U << 19 : 200;
    bench.round_trip(random_items(random, count, longest), start);
    start += Bytes(4096 * (sim_random(random) % 5000));
  }
}

TEST_CASE("every limit of a record is met exactly") {
  Bench bench(Bytes(96U << 20));
  for (const std::size_t packed : {std::size_t{65384}, std::size_t{65384 + 8},
                                   std::size_t{2 * 65384}, std::size_t{65384 - 8}}) {
    std::vector<FoundItem> items;
    // One item with regions of 4080 bytes takes 4088 each; the last one fills up.
    FoundItem item{16, {}};
    std::size_t left = packed - 8;
    while (left >= 2 * 4088) {
      item.regions.emplace_back(4080, 'p');
      left -= 4088;
    }
    while (left > 0) {
      const std::size_t now = std::min<std::size_t>(left, 4000);
      item.regions.emplace_back(now - 8, 'q');
      left -= now;
    }
    items.push_back(item);
    bench.round_trip(items, Lsn(1U << 20));
  }
  for (const std::size_t bulk : {(1U << 20) - 4096U, 1U << 20, (1U << 20) + 4096U, 4U << 20}) {
    bench.round_trip({{20, {std::string(bulk, 'b')}}}, Lsn(1U << 20));
    bench.round_trip({{20, {std::string(bulk, 'b'), std::string(bulk, 'c')}}}, Lsn(1U << 20));
  }
  // 1024 regions of one block: one part each.
  FoundItem many{21, {}};
  for (int i = 0; i < 1500; ++i) {
    many.regions.emplace_back(4096, static_cast<char>(i));
  }
  bench.round_trip({many}, Lsn(bench.file->geometry().data_bytes - 4096 * 700));
}
