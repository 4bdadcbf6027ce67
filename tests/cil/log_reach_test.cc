// How much of a log recovery reads and hashes at most, also of one that was forged. Counted in
// bytes, not in time.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "log/hash.h"
#include "log/log_scan.h"
#include "probe.h"
#include "support/scratch_directory.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kData = 2 * kBlock;

struct Killed {
  SimContent opened;                // as it was when the journal had just opened it
  SimContent image;                 // as a kill left it
  std::vector<std::uint64_t> ends;  // of the checkpoints
};

// A log of which `share` percent are written, in one lap, nothing let go.
Killed killed_log(LogWorld& world, std::uint64_t share, std::size_t item_bytes = 60000) {
  Killed killed;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  killed.opened = world.disk.image(kLogPath);
  const std::uint64_t most = journal->info().data.value() * share / 100;
  while (journal->stats().log_used.value() + item_bytes + 2 * kBlock <= most) {
    items.push_back(std::make_unique<Probe>(trace, 1));
    items.back()->regions = {random_bytes(items.size(), item_bytes)};
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, item_bytes)).ok());
    killed.ends.push_back(journal->stats().log_used.value());
  }
  killed.image = world.disk.image(kLogPath);
  finish(journal);
  return killed;
}

// The state as it was just after the log was opened: its stable LSN is 0.
void put_old_state(Killed& killed) {
  for (const std::size_t slot : {kBlock, killed.image.size() - 2 * kBlock}) {
    std::copy_n(killed.opened.begin() + static_cast<std::ptrdiff_t>(slot), kBlock,
                killed.image.begin() + static_cast<std::ptrdiff_t>(slot));
  }
}

ScanResult scan_image(SimDisk& disk, const SimContent& image, Found& found) {
  disk.set_image(kLogPath, image);
  auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  disk.clear_io_log();
  const auto result = scan(*file, collect_into(found), {});
  REQUIRE(result.ok());
  return *result;
}

// In every block from `from` on a header with the right place and consistent lengths that promises
// the longest record there is; only its hash is wrong.
void forge_headers(SimContent& image, std::uint64_t from, const format::RecordHeader& model) {
  for (std::size_t at = kData + from; at + kBlock <= image.size() - 2 * kBlock; at += kBlock) {
    format::RecordHeader header = model;
    header.lsn = at - kData;
    header.stable_lsn = header.lsn;
    header.bulk_blocks = static_cast<std::uint32_t>(format::kMaxRecordBulkBytes / kBlock);
    header.packed_bytes = static_cast<std::uint32_t>(format::kMaxRecordPackedBytes);
    header.checkpoint_bytes = std::uint64_t{4} << 20;
    header.record_index = 1;
    header.record_count = 4;
    std::memcpy(image.data() + at, &header, sizeof header);
  }
}

// Writes the bytes to a file of the real file system; blocks of zeros become holes.
void put_sparse(const std::string& path, const SimContent& image, std::uint64_t file_bytes) {
  const int fd = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  REQUIRE(::ftruncate(fd, static_cast<off_t>(file_bytes)) == 0);
  for (std::size_t at = 0; at < image.size(); at += kBlock) {
    const std::byte* block = image.data() + at;
    if (std::any_of(block, block + kBlock, [](std::byte byte) { return byte != std::byte{0}; })) {
      REQUIRE(::pwrite(fd, block, kBlock, static_cast<off_t>(at)) == kBlock);
    }
  }
  REQUIRE(::close(fd) == 0);
}

}  // namespace

TEST_CASE("a forged header in every block does not make recovery hash more than a few times all") {
  LogWorld world({.size = Bytes(64U << 20)});
  Killed killed = killed_log(world, 1);
  put_old_state(killed);
  format::RecordHeader model{};
  std::memcpy(&model, killed.image.data() + kData, sizeof model);
  forge_headers(killed.image, killed.ends.back(), model);
  Found found;
  const ScanResult result = scan_image(world.disk, killed.image, found);
  CHECK(found.size() == killed.ends.size());
  CHECK(result.report.end == LogEnd::kClean);
  CHECK(result.hashed.value() <=
        2 * result.report.read.value() + 17 * format::kMaxRecordBytes + killed.ends.back());
  // They were candidates.
  CHECK(result.hashed.value() > 16 * format::kMaxRecordBytes);
}

TEST_CASE("a forged log of terabytes without any content is not read") {
  constexpr std::uint64_t kDataBytes = std::uint64_t{1} << 40;
  const ScratchDirectory scratch;
  for (const std::uint64_t tail : {std::uint64_t{0}, kDataBytes - (1U << 20)}) {
    CAPTURE(tail);
    format::Superblock superblock{};
    superblock.block_bytes = kBlock;
    superblock.data_bytes = kDataBytes;
    superblock.file_bytes = kDataBytes + 4 * kBlock;
    superblock.max_checkpoint_bytes = 64U << 20;
    format::StateSlot state{};
    state.generation = 1;
    state.incarnation = 1;
    state.tail_lsn = state.stable_lsn = tail;
    SimContent front(2 * kBlock);
    encode(superblock, front.data());
    encode(state, front.data() + kBlock);
    put_sparse(scratch / "log", front, superblock.file_bytes);
    // A test that fails ends all the same: 4 GiB are enough to see.
    std::uint64_t read = 0;
    const auto count = [&read](Bytes done, Bytes) {
      read = done.value();
      if (read > std::uint64_t{4} << 30) {
        throw std::bad_alloc();
      }
    };
    const auto report = scan_log(scratch / "log", kIgnore, {.buffered = true, .progress = count});
    REQUIRE(report.ok());
    CHECK(report->end == LogEnd::kClean);
    CHECK(report->head == Lsn(tail));
    CHECK(report->read <= Bytes(64U << 20));
  }
}

TEST_CASE("a witness behind holes of the file is found as if there were none") {
  LogWorld world({.size = Bytes(32U << 20)});
  Killed killed = killed_log(world, 45);
  put_old_state(killed);
  REQUIRE(killed.ends.size() > 100);
  // Most of what was written is gone, in pieces of several lengths.
  for (std::size_t i = 3; i + 2 < killed.ends.size(); i += 2 + i % 7) {
    const auto from = static_cast<std::ptrdiff_t>(kData + killed.ends[i]);
    const auto to = static_cast<std::ptrdiff_t>(
        kData + killed.ends[std::min(i + i % 7, killed.ends.size() - 2)]);
    std::fill(killed.image.begin() + from,
              std::max(killed.image.begin() + to, killed.image.begin() + from), std::byte{0});
  }
  Found dense;
  const RecoveryReport expected = scan_image(world.disk, killed.image, dense).report;
  REQUIRE(expected.end == LogEnd::kDamaged);
  const ScratchDirectory scratch;
  put_sparse(scratch / "log", killed.image, killed.image.size());
  Found sparse;
  const auto report = scan_log(scratch / "log", collect_into(sparse), {.buffered = true});
  REQUIRE(report.ok());
  CHECK(sparse == dense);
  CHECK(report->end == expected.end);
  CHECK(report->head == expected.head);
  CHECK(report->stable == expected.stable);
  CHECK(report->newest_sequence == expected.newest_sequence);
  CHECK(report->in_flight == expected.in_flight);
}

TEST_CASE("torn records, whose headers are right, do not hide the witness after them") {
  LogWorld world({.size = Bytes(32U << 20)});
  Killed killed = killed_log(world, 45, 1U << 20);
  put_old_state(killed);
  REQUIRE(killed.ends.size() > 10);
  // All but the first and the last checkpoint lose a byte somewhere in their bodies.
  for (std::size_t i = 1; i + 1 < killed.ends.size(); ++i) {
    killed.image[kData + killed.ends[i] - 100] ^= std::byte{1};
  }
  Found found;
  const ScanResult result = scan_image(world.disk, killed.image, found);
  CHECK(found.size() == 1);
  CHECK(result.report.end == LogEnd::kDamaged);
  CHECK(result.report.stable.value() == killed.ends[killed.ends.size() - 2]);
  CHECK(result.report.stable_sequence == Sequence(killed.ends.size() - 1));
  CHECK(result.report.newest_sequence == Sequence(killed.ends.size()));
  CHECK(result.report.in_flight == 1);
}

TEST_CASE("a record of inconsistent lengths is no witness, though its hash is right") {
  const auto judge = [](void (*change)(format::RecordHeader&)) {
    LogWorld world;
    Killed killed = killed_log(world, 40);
    put_old_state(killed);
    REQUIRE(killed.ends.size() >= 3);
    // The second is gone; the last of all is changed, its hash made right again.
    killed.image[kData + killed.ends[0] + 300] ^= std::byte{1};
    for (std::size_t i = 1; i + 1 < killed.ends.size(); ++i) {
      std::byte* record = killed.image.data() + kData + killed.ends[i];
      format::RecordHeader header{};
      std::memcpy(&header, record, sizeof header);
      change(header);
      header.record_hash = 0;
      std::memcpy(record, &header, sizeof header);
      header.record_hash =
          hash64(record, format::record_bytes(header.packed_bytes, header.bulk_blocks, kBlock));
      std::memcpy(record, &header, sizeof header);
    }
    Found found;
    return scan_image(world.disk, killed.image, found).report.end;
  };
  CHECK(judge([](format::RecordHeader&) {}) == LogEnd::kDamaged);
  CHECK(judge([](format::RecordHeader& h) { h.checkpoint_bytes = kBlock; }) == LogEnd::kClean);
  CHECK(judge([](format::RecordHeader& h) { h.checkpoint_bytes += 8; }) == LogEnd::kClean);
  CHECK(judge([](format::RecordHeader& h) { h.checkpoint_bytes <<= 20; }) == LogEnd::kClean);
  CHECK(judge([](format::RecordHeader& h) { h.record_count = 1000; }) == LogEnd::kClean);
  CHECK(judge([](format::RecordHeader& h) { h.incarnation += 1; }) == LogEnd::kClean);
}

TEST_CASE(
    "what begins beyond the reach of the newest state does not count, in a chain or as witness") {
  LogWorld world;
  Killed killed = killed_log(world, 85, 20000);
  const std::uint64_t reach = (killed.image.size() - 4 * kBlock) / 2 / kBlock * kBlock;
  REQUIRE(killed.ends.back() > reach + 100000);
  // As a writer may not leave it: all of this life's checkpoints under its first state.
  put_old_state(killed);
  Found found;
  const ScanResult result = scan_image(world.disk, killed.image, found);
  const auto last = std::lower_bound(killed.ends.begin(), killed.ends.end(), reach);
  const auto within = static_cast<std::size_t>(last - killed.ends.begin());
  // One more may begin below the reach and end beyond.
  CHECK(found.size() >= within);
  CHECK(found.size() <= within + 1);
  CHECK(result.report.end != LogEnd::kDamaged);
  CHECK(result.report.read.value() <= reach + format::kMaxRecordBytes);
  // A witness beyond is none: the second checkpoint rots, all below the reach is gone.
  for (std::size_t i = 1; i < found.size(); ++i) {
    killed.image[kData + killed.ends[i] - 4096] ^= std::byte{1};
  }
  Found rest;
  CHECK(scan_image(world.disk, killed.image, rest).report.end == LogEnd::kClean);
  CHECK(rest.size() == 1);
}

TEST_CASE("reopening after a crash reads no more than half of the log beyond the stable LSN") {
  LogWorld world({.size = Bytes(64U << 20)});
  for (const std::uint64_t share : {0U, 1U, 30U, 49U}) {
    Killed killed = killed_log(world, share, 500000);
    for (const bool rotted : {false, true}) {
      if (rotted && !killed.ends.empty()) {
        killed.image[kData + 200] ^= std::byte{1};
      }
      Found found;
      const ScanResult result = scan_image(world.disk, killed.image, found);
      const std::uint64_t data = killed.image.size() - 4 * kBlock;
      CHECK(result.report.read.value() <= data / 2);
      for (const SimIo& io : world.disk.io_log()) {
        CHECK((io.op != SimOp::kRead || io.offset + io.bytes <= kData + data / 2));
      }
      CHECK(found.size() == (rotted ? 0 : killed.ends.size()));
    }
    world.disk.set_image(kLogPath, SimContent());
    (void)world.disk.unlink(kLogPath);
    REQUIRE(create_log(kLogPath, {.size = Bytes(64U << 20)}).ok());
  }
}

namespace {

constexpr std::uint64_t kCheckpoint = 7 * kBlock;  // of those below

// A log of `count` checkpoints of seven blocks each, as a kill leaves it; they go round the log,
// whose data area holds a whole number of them.
SimContent even_log(std::uint64_t count) {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.after = Tracking::kRelease;
  auto journal = world.open();
  REQUIRE(journal->info().data.value() % kCheckpoint == 0);
  for (std::uint64_t i = 1; i <= count; ++i) {
    item.regions = {random_bytes(i, 6 * kBlock)};
    REQUIRE(journal->force(commit(*journal, {&item}, 30'000)).ok());
    const JournalStats stats = journal->stats();
    REQUIRE(stats.tail + stats.log_used == Lsn(i * kCheckpoint));
  }
  SimContent image = world.disk.image(kLogPath);
  finish(journal);
  return image;
}

format::RecordHeader header_at(const SimContent& image, std::size_t offset) {
  format::RecordHeader header;
  std::memcpy(&header, image.data() + offset, sizeof header);
  return header;
}

// Says in the log's state where it begins and up to where it was stable.
void put_state(const SimContent& image, Lsn tail, Lsn stable) {
  auto file = LogFile::open(kLogPath, DeviceMode::kReadWrite, false, default_pool());
  REQUIRE(file.ok());
  format::StateSlot state = file->state();
  const std::size_t offset = file->geometry().offset_of(tail);
  state.tail_lsn = tail.value();
  state.tail_predecessor = header_at(image, offset).predecessor;
  state.stable_lsn = stable.value();
  REQUIRE(file->write_state(state).ok());
}

}  // namespace

TEST_CASE("a log that holds checkpoints from its tail to its last block is read whole") {
  SimDisk disk;
  const ScopedOs scope(disk);
  const SimContent image = even_log(40);
  disk.set_image(kLogPath, image);
  const std::uint64_t data = image.size() - 4 * kBlock;
  const Lsn end(40 * kCheckpoint);
  put_state(image, Lsn(end.value() - data), end);
  Found found;
  const auto report = scan_log(kLogPath, collect_into(found));
  REQUIRE(report.ok());
  CHECK(report->end == LogEnd::kClean);
  CHECK(std::string(report->reason) == "the log is full to its last block");
  CHECK(report->head == end);
  CHECK(report->bytes == Bytes(data));
  REQUIRE(found.size() == data / kCheckpoint);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::uint64_t sequence = 40 - found.size() + 1 + i;
    CHECK(found[i] == FoundCheckpoint{sequence, {{17, {random_bytes(sequence, 6 * kBlock)}}}});
  }
}

TEST_CASE("a record that would reach over the end of what the log can hold is no witness") {
  SimDisk disk;
  const ScopedOs scope(disk);
  SimContent image = even_log(20);
  const std::size_t data = image.size() - 4 * kBlock;
  // In the last block, and going on at the log's beginning, where the tail is: whole, with its
  // hash, if that were possible.
  format::RecordHeader header = header_at(image, kData + 19 * kCheckpoint);
  REQUIRE(header.sequence == 20);
  header.sequence = 99;
  header.lsn = data - kBlock;
  header.record_hash = 0;
  SimContent record(kCheckpoint);
  std::copy_n(image.begin() + static_cast<std::ptrdiff_t>(kData + 19 * kCheckpoint), kBlock,
              record.begin());
  std::memcpy(record.data(), &header, sizeof header);
  std::copy_n(image.begin() + static_cast<std::ptrdiff_t>(kData), kCheckpoint - kBlock,
              record.begin() + kBlock);
  header.record_hash = hash64(record.data(), record.size());
  std::memcpy(record.data(), &header, sizeof header);
  std::copy_n(record.begin(), kBlock,
              image.begin() + static_cast<std::ptrdiff_t>(kData + data - kBlock));
  disk.set_image(kLogPath, image);
  put_state(image, Lsn(0), Lsn(20 * kCheckpoint));
  Found found;
  const auto report = scan_log(kLogPath, collect_into(found));
  REQUIRE(report.ok());
  CHECK(found.size() == 20);
  CHECK(report->end == LogEnd::kClean);
  CHECK(report->newest_sequence == Sequence(20));
  CHECK(report->in_flight == 0);
}

TEST_CASE("whichever read of a log with a torn end fails, the scan fails, also among leftovers") {
  SimDisk disk;
  const ScopedOs scope(disk);
  SimContent image = even_log(12);
  image[kData + 9 * kCheckpoint + 3 * kBlock] ^= std::byte{1};  // two whole ones stand behind it
  disk.set_image(kLogPath, image);
  put_state(image, Lsn(0), Lsn(4 * kCheckpoint));
  const auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  const auto scanned = [&] {
    return scan(*file, kIgnore, {}, {.chunk_bytes = kBlock, .depth = 0});
  };
  const auto whole = scanned();
  REQUIRE(whole.ok());
  CHECK(whole->report.checkpoints == 9);
  CHECK(whole->report.newest_sequence == Sequence(12));
  std::uint64_t reads = 0;
  for (bool fired = true; fired; reads += fired ? 1 : 0) {
    disk.clear_io_log();
    disk.inject({.op = SimOp::kRead, .nth = reads + 1, .error = EREMOTEIO});
    const auto result = scanned();
    disk.clear_faults();
    fired = false;
    for (const SimIo& io : disk.io_log()) {
      fired |= io.faulty;
    }
    REQUIRE(result.ok() == !fired);
    if (fired) {
      CHECK(result.error().sys_errno == EREMOTEIO);
    }
  }
  CHECK(reads > 12 * 7);
}
