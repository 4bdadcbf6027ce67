// ChainReader and scan(): what they deliver against a plain reader of the file's bytes, however the
// log is cut into reads; a live log's bound; failing reads.
#include "log/chain_reader.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "keel/cil/follower.h"
#include "keel/cil/object_item.h"
#include "log/log_scan.h"
#include "probe.h"
#include "support/test_seed.h"
#include "thread_refusal.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;

const std::vector<ReadAheadOptions> kWays = {
    {.chunk_bytes = kBlock, .depth = 0, .threads = 0},
    {.chunk_bytes = kBlock, .depth = 3, .threads = 2},
    {.chunk_bytes = 5 * kBlock, .depth = 2, .threads = 1},
    {.chunk_bytes = 31 * kBlock, .depth = 7, .threads = 3},
    {},
};

// Checkpoints from the recorded tail on, read straight from the image as FORMAT.md has it; of a
// sound log that was closed.
class PlainReader {
 public:
  explicit PlainReader(const SimContent& image) : image_(image) {
    std::memcpy(&superblock_, image.data(), sizeof superblock_);
    std::memcpy(&state_, image.data() + kBlock, sizeof state_);
  }

  Found read_all() {
    Found found;
    for (std::uint64_t lsn = state_.tail_lsn; lsn < state_.stable_lsn;) {
      lsn = read_checkpoint(lsn, found);
    }
    return found;
  }

 private:
  [[nodiscard]] std::string bytes_at(std::uint64_t lsn, std::size_t bytes) const {
    std::string text;
    for (; bytes > 0; --bytes, ++lsn) {
      text += static_cast<char>(image_[2 * kBlock + lsn % superblock_.data_bytes]);
    }
    return text;
  }
  template <class Struct>
  static Struct take(const std::string& stream, std::size_t& at) {
    Struct value;
    std::memcpy(&value, stream.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }

  std::uint64_t read_checkpoint(std::uint64_t lsn, Found& found) const {
    std::string packed, bulk;
    format::RecordHeader header{};
    do {
      std::size_t at = 0;
      header = take<format::RecordHeader>(bytes_at(lsn, sizeof header), at);
      packed += bytes_at(lsn + sizeof header, header.packed_bytes);
      lsn += (sizeof header + header.packed_bytes + kBlock - 1) / kBlock * kBlock;
      bulk += bytes_at(lsn, header.bulk_blocks * kBlock);
      lsn += header.bulk_blocks * kBlock;
    } while (header.record_index + 1 < header.record_count);
    FoundCheckpoint& checkpoint = found.emplace_back();
    checkpoint.sequence = header.sequence;
    for (std::size_t at = 0, bulk_at = 0; at < packed.size();) {
      const auto item = take<format::ItemHeader>(packed, at);
      FoundItem& to = checkpoint.items.emplace_back();
      to.type = item.type;
      for (std::uint32_t i = 0; i < item.region_count; ++i) {
        const auto region = take<format::RegionHeader>(packed, at);
        to.regions.push_back(bulk.substr(bulk_at, region.bulk_blocks * kBlock) +
                             packed.substr(at, region.rest_bytes));
        bulk_at += region.bulk_blocks * kBlock;
        at += (region.rest_bytes + 7) / 8 * 8;
      }
    }
    return lsn;
  }

  const SimContent& image_;
  format::Superblock superblock_{};
  format::StateSlot state_{};
};

// Random items over a few laps of a small log; closed, or as a kill leaves it.
void write_log(LogWorld& world, std::uint64_t& random, bool closed, SimContent& image) {
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < 5; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
  }
  auto journal = world.open();
  journal->release_recovered();
  const std::uint64_t rounds = 5 + sim_random(random) % 60;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    Probe& item = *items[round % items.size()];
    item.regions.assign(1 + sim_random(random) % 5, {});
    std::size_t total = 0;
    for (std::string& region : item.regions) {
      const std::uint64_t draw = sim_random(random);
      const std::size_t lengths[] = {0, draw % 300, 4095, 4096, 8192, draw % 20000, draw % 60000};
      region = random_bytes(draw, lengths[draw / 65536 % 7]);
      total += region.size();
    }
    const Sequence sequence = commit(*journal, {&item}, total + 1000);
    if (sim_random(random) % 2 == 0) {
      REQUIRE(journal->force(sequence).ok());
    }
  }
  REQUIRE(journal->force_all().ok());
  if (!closed) {
    image = world.disk.image(kLogPath);
  }
  finish(journal);
  if (closed) {
    image = world.disk.image(kLogPath);
  }
}

LogFile open_file() {
  auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  return std::move(*file);
}

Found scan_in(const ReadAheadOptions& way, RecoveryReport& report) {
  const LogFile file = open_file();
  Found found;
  const auto result = scan(file, collect_into(found), {}, way);
  REQUIRE(result.ok());
  report = result->report;
  return found;
}

std::uint64_t read_of_data(const SimDisk& disk) {
  std::uint64_t bytes = 0;
  for (const SimIo& io : disk.io_log()) {
    const bool data = io.op == SimOp::kRead && io.offset >= 2 * kBlock && io.result > 0;
    bytes += data ? static_cast<std::uint64_t>(io.result) : 0;
  }
  return bytes;
}

}  // namespace

TEST_CASE("whatever the reads, recovery delivers what a plain reader finds in the file") {
  std::uint64_t random = test_seed("plain", 61);
  for (std::uint64_t round = 0; round < test_rounds(20, 4); ++round) {
    CAPTURE(round);
    LogWorld world;
    SimContent image;
    write_log(world, random, true, image);
    const Found expected = PlainReader(image).read_all();
    REQUIRE_FALSE(expected.empty());
    for (const ReadAheadOptions& way : kWays) {
      RecoveryReport report;
      CHECK(scan_in(way, report) == expected);
      CHECK(report.end == LogEnd::kClean);
      CHECK(report.checkpoints == expected.size());
      CHECK(report.read == report.bytes);
    }
  }
}

TEST_CASE("of a killed log, sound or rotted, all ways of reading tell the same") {
  std::uint64_t random = test_seed("killed", 62);
  for (std::uint64_t round = 0; round < test_rounds(30, 6); ++round) {
    CAPTURE(round);
    LogWorld world;
    SimContent image;
    write_log(world, random, false, image);
    if (round % 3 != 0) {
      image[2 * kBlock + sim_random(random) % (image.size() - 4 * kBlock)] ^= std::byte{4};
    }
    world.disk.set_image(kLogPath, image);
    RecoveryReport first;
    const Found expected = scan_in(kWays[0], first);
    for (const ReadAheadOptions& way : kWays) {
      RecoveryReport report;
      CHECK(scan_in(way, report) == expected);
      CHECK(report.message() == first.message());
    }
  }
}

TEST_CASE("a region is handed over from the read buffer if its blocks stand together there") {
  LogWorld world({.size = Bytes(4U << 20)});
  Trace trace;
  Probe item(trace, 1);
  item.regions = {random_bytes(1, 20 * kBlock), random_bytes(2, 30 * kBlock)};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item}, 300000)).ok());
  finish(journal);
  const LogFile file = open_file();
  auto whole = ChainReader::make(file);
  REQUIRE(whole.ok());
  REQUIRE(whole->next(Lsn(file.state().stable_lsn))->proven);
  const Bytes packed_only = whole->reader().buffer_bytes();
  auto cut = ChainReader::make(file, {.chunk_bytes = 33 * kBlock});
  REQUIRE(cut.ok());
  REQUIRE(cut->next(Lsn(file.state().stable_lsn))->proven);
  const auto regions = cut->checkpoint().items[0].regions();
  // The first lies before the cut, the second is cut and so copied.
  CHECK(regions[0].bulk.size() == 20 * kBlock);
  CHECK(regions[1].bulk.size() == 30 * kBlock);
  CHECK(std::memcmp(regions[1].bulk.data(), item.regions[1].data(), 30 * kBlock) == 0);
  const auto items = whole->checkpoint().items[0].regions();
  CHECK(items[1].bulk.data() - items[0].bulk.data() == 20 * static_cast<std::ptrdiff_t>(kBlock));
  CHECK(packed_only < Bytes(std::uint64_t{4} << 20) + Bytes(std::uint64_t{1} << 20));
}

TEST_CASE("a follower reads the next checkpoint once it ends below the bound, and nothing beyond") {
  LogWorld world;
  std::uint64_t random = test_seed("follow", 63);
  SimContent image;
  write_log(world, random, true, image);
  const Found expected = PlainReader(image).read_all();
  for (const ReadAheadOptions& way : kWays) {
    const LogFile file = open_file();
    world.disk.clear_io_log();
    auto chain = ChainReader::make(file, way);
    REQUIRE(chain.ok());
    const Lsn start = chain->position().lsn;
    const Lsn last(file.state().stable_lsn);
    std::vector<ChainPosition> positions;
    Found found;
    for (Lsn end = start; end <= last; end += Bytes(kBlock)) {
      const ChainPosition before = chain->position();
      const auto outcome = chain->next(end);
      REQUIRE(outcome.ok());
      CHECK(read_of_data(world.disk) <= (end - start).value());
      if (outcome->proven) {
        CHECK(chain->position().lsn == end);
        REQUIRE(collect_into(found)(chain->checkpoint()).ok());
        positions.push_back(before);
      } else {
        CHECK(outcome->beyond_end);
        CHECK(chain->position().lsn == before.lsn);
      }
    }
    CHECK(found == expected);
    CHECK(read_of_data(world.disk) == (last - start).value());
    // Back to where it once stood.
    for (std::size_t i : {positions.size() - 1, std::size_t{0}, positions.size() / 2}) {
      chain->seek(positions[i]);
      REQUIRE(chain->next(last)->proven);
      Found again;
      REQUIRE(collect_into(again)(chain->checkpoint()).ok());
      CHECK(again[0] == expected[i]);
    }
  }
}

TEST_CASE("whichever read fails, recovery is an error after a prefix, no thread stays") {
  LogWorld world;
  std::uint64_t random = test_seed("fail", 64);
  SimContent image;
  write_log(world, random, false, image);
  world.disk.set_image(kLogPath, image);
  RecoveryReport report;
  const Found expected = scan_in(kWays[0], report);
  for (const ReadAheadOptions& way : kWays) {
    for (std::uint64_t nth = 1;; ++nth) {
      const LogFile file = open_file();
      world.disk.clear_io_log();
      world.disk.inject({.op = SimOp::kRead, .nth = nth, .error = EIO});
      Found found;
      const auto result = scan(file, collect_into(found), {}, way);
      world.disk.clear_faults();
      REQUIRE(found.size() <= expected.size());
      REQUIRE(std::equal(found.begin(), found.end(), expected.begin()));
      if (result.ok()) {
        CHECK(found == expected);
        break;
      }
      CHECK(result.error().code == Errc::kIo);
    }
  }
}

TEST_CASE("a handler's error ends recovery at once, with reads under way") {
  LogWorld world;
  std::uint64_t random = test_seed("handler", 65);
  SimContent image;
  write_log(world, random, true, image);
  for (const ReadAheadOptions& way : kWays) {
    const LogFile file = open_file();
    int calls = 0;
    const RecoveryHandler refuse = [&calls](const RecoveredCheckpoint&) -> Status {
      ++calls;
      return Error{Errc::kBusy, 0, "enough", 0};
    };
    const auto result = scan(file, refuse, {}, way);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == Errc::kBusy);
    CHECK(calls == 1);
  }
}

TEST_CASE("recovery without threads delivers the same") {
  LogWorld world;
  std::uint64_t random = test_seed("threadless", 66);
  SimContent image;
  write_log(world, random, true, image);
  RecoveryReport report;
  const Found expected = scan_in(kWays[0], report);
  const ThreadRefusal refusal(0);
  for (const ReadAheadOptions& way : kWays) {
    CHECK(scan_in(way, report) == expected);
  }
  CHECK((refusal.refused() > 0 || !ThreadRefusal::works()));
}

TEST_CASE("recovery's memory is about two max_checkpoint and the chunks ahead") {
  // One checkpoint after the other as large as can be, all blocks apart, or all small regions.
  LogWorld world({.size = Bytes(64U << 20), .max_checkpoint = Bytes(8U << 20)});
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  for (std::uint32_t i = 0; i < 6; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    if (i % 2 == 0) {
      items.back()->regions = {random_bytes(1, 6U << 20)};
    } else {
      items.back()->regions.assign(1500, std::string(4000, 's'));
    }
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, 7U << 20)).ok());
  }
  finish(journal);
  const LogFile file = open_file();
  constexpr std::size_t kChunk = std::size_t{256} << 10;
  const ReadAheadOptions way{.chunk_bytes = kChunk, .depth = 3, .threads = 2};
  auto chain = ChainReader::make(file, way);
  REQUIRE(chain.ok());
  for (int round = 0; round < 6; ++round) {
    REQUIRE(chain->next(Lsn(file.state().stable_lsn))->proven);
    CHECK(chain->reader().buffer_bytes() <= Bytes(2 * (8U << 20) + (way.depth + 3) * kChunk));
  }
}

TEST_CASE("what a journal writes is read again, however little its pool gives in one piece") {
  // Above the limit together: all that is packed, then all regions that are in several reads.
  LogWorld world({.size = Bytes(72U << 20), .max_checkpoint = Bytes(16U << 20)});
  auto pool = Pool::create({.capacity_bytes = 256U << 20, .kvmalloc_max_bytes = 6U << 20});
  REQUIRE(pool.ok());
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  std::vector<LogItem*> packed, large;
  Found expected(2);
  for (std::uint32_t i = 0; i < 6; ++i) {
    const bool is_large = i >= 3;
    Probe& item = *items.emplace_back(std::make_unique<Probe>(trace, i));
    if (is_large) {
      item.regions = {random_bytes(i, 5U << 20)};
    } else {
      item.regions.assign(1000, random_bytes(i, 4000));
    }
    (is_large ? large : packed).push_back(&item);
    expected[is_large ? 1 : 0].items.push_back({16 + i, item.regions});
  }
  const JournalConfig config{.pool = pool->get(), .cil_memory = Bytes(192U << 20)};
  auto journal = world.open(config);
  for (const auto* together : {&packed, &large}) {
    FoundCheckpoint& checkpoint = expected[together == &large ? 1 : 0];
    checkpoint.sequence = commit(*journal, *together, 16'000'000).value();
    REQUIRE(journal->force(Sequence(checkpoint.sequence)).ok());
  }
  Found followed;
  {
    const auto follower = journal->follow({});
    REQUIRE(follower.ok());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto checkpoint = (*follower)->next(0);
      REQUIRE(checkpoint.ok());
      REQUIRE(collect_into(followed)(**checkpoint).ok());
    }
  }
  CHECK((followed == expected));
  const SimContent image = world.disk.image(kLogPath);
  finish(journal);
  world.disk.set_image(kLogPath, image);  // as a kill leaves it
  journal = world.open(config);
  CHECK((world.found == expected));
  finish(journal);
}

TEST_CASE("whichever mapping recovery is refused, it says so and keeps none") {
  class CountingDisk : public SimDisk {
   public:
    int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
             std::uint64_t offset, void** out) override {
      if (left-- <= 0) {
        return -ENOMEM;
      }
      ++held;
      return SimDisk::mmap(address, bytes, protection, flags, fd, offset, out);
    }
    int munmap(void* address, std::size_t bytes) override {
      --held;
      return SimDisk::munmap(address, bytes);
    }
    int left = 1'000;
    int held = 0;
  };
  SimContent image;
  {
    LogWorld world({.size = Bytes(48U << 20), .max_checkpoint = Bytes(10U << 20)});
    Trace trace;
    Probe small(trace, 1), large(trace, 2);
    small.regions.assign(1500, std::string(4000, 's'));
    large.regions = {random_bytes(1, 5U << 20)};
    auto journal = world.open();
    for (Probe* item : {&small, &large}) {
      REQUIRE(journal->force(commit(*journal, {item}, 7U << 20)).ok());
    }
    finish(journal);
    image = world.disk.image(kLogPath);
  }
  CountingDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, image);
  const LogFile file = open_file();
  const int held_before = disk.held;
  const ReadAheadOptions way{.depth = 0, .threads = 0};
  // Two chunks at least; a first copy of what is packed, a larger one, and one of the region.
  int refused = 0;
  for (bool read = false; !read; ++refused) {
    CAPTURE(refused);
    REQUIRE(refused < 20);
    disk.left = refused;
    std::size_t checkpoints = 0;
    const auto count = [&](const RecoveredCheckpoint&) {
      ++checkpoints;
      return Status{};
    };
    const auto result = scan(file, count, {}, way);
    read = result.ok();
    CHECK(disk.held == held_before);
    CHECK((read ? checkpoints == 2 : result.error().code == Errc::kNoMemory));
  }
  CHECK(refused > 5);
}
