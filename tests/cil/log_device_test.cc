// What a log file may be, who may open it, and what a failed creation leaves.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "keel/base/os.h"
#include "log/format.h"
#include "log/log_device.h"
#include "probe.h"
#include "support/death.h"
#include "support/scratch_directory.h"

using namespace keel;
using namespace keel_test;

namespace {

Errc open_code(const std::string& path) {
  const auto journal = Journal::open(path, {.buffered = true}, kIgnore);
  const auto scanned = scan_log(path, kIgnore, {.buffered = true});
  REQUIRE_FALSE(journal.ok());
  REQUIRE_FALSE(scanned.ok());
  CHECK(scanned.error().code == journal.error().code);
  return journal.error().code;
}

const LogConfig kBuffered = [] {
  LogConfig config;
  config.size = kMinLogBytes;
  config.buffered = true;
  return config;
}();

}  // namespace

TEST_CASE("what is not a regular file with one name is not a log") {
  const ScratchDirectory directory;
  const std::string log = directory / "log";
  REQUIRE(create_log(log, kBuffered).ok());
  struct stat made {};
  REQUIRE(::stat(log.c_str(), &made) == 0);
  CHECK((made.st_mode & 0777) == 0600);

  CHECK(open_code(directory / "none") == Errc::kNotFound);
  CHECK(open_code(directory.path) == Errc::kNotALog);
  REQUIRE(::symlink(log.c_str(), (directory / "link").c_str()) == 0);
  CHECK(open_code(directory / "link") == Errc::kNotALog);
  REQUIRE(::mkfifo((directory / "fifo").c_str(), 0600) == 0);
  CHECK(open_code(directory / "fifo") == Errc::kNotALog);
  CHECK(open_code("/dev/null") == Errc::kNotALog);
  std::ofstream(directory / "small") << "small";
  CHECK(open_code(directory / "small") == Errc::kNotALog);
  std::ofstream(directory / "large") << std::string(2U << 20, 'x');
  CHECK(open_code(directory / "large") == Errc::kNotALog);

  CHECK(Journal::open(log, {.buffered = true}, kIgnore).ok());
  REQUIRE(::link(log.c_str(), (directory / "second").c_str()) == 0);
  CHECK(open_code(log) == Errc::kNotALog);
  REQUIRE(::unlink((directory / "second").c_str()) == 0);
  CHECK(Journal::open(log, {.buffered = true}, kIgnore).ok());
}

TEST_CASE("a log is not made over what exists, nor where it cannot be") {
  const ScratchDirectory directory;
  std::ofstream(directory / "file") << "mine";
  REQUIRE(::symlink("nowhere", (directory / "dangling").c_str()) == 0);
  for (const char* name : {"file", "dangling", "."}) {
    const auto made = create_log(directory / name, kBuffered);
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kExists);
  }
  std::string text;
  std::ifstream(directory / "file") >> text;
  CHECK(text == "mine");
  const auto nowhere = create_log(directory / "no/log", kBuffered);
  REQUIRE_FALSE(nowhere.ok());
  CHECK(nowhere.error().code == Errc::kNotFound);
  for (const std::uint64_t bytes : {std::uint64_t{0}, kMinLogBytes.value() - 1}) {
    const auto small = create_log(directory / "log", {.size = Bytes(bytes), .buffered = true});
    REQUIRE_FALSE(small.ok());
    CHECK(small.error().code == Errc::kInvalidArgument);
  }
  const auto quarter = create_log(
      directory / "log",
      {.size = kMinLogBytes, .max_checkpoint = Bytes(kMinLogBytes.value() / 2), .buffered = true});
  REQUIRE_FALSE(quarter.ok());
  CHECK(quarter.error().code == Errc::kInvalidArgument);
  CHECK_FALSE(std::filesystem::exists(directory / "log"));
}

TEST_CASE("one log, one journal: a second opener and a reader are refused until it is gone") {
  LogWorld world;
  auto journal = world.open();
  const auto second = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE_FALSE(second.ok());
  CHECK(second.error().code == Errc::kBusy);
  const auto reader = scan_log(kLogPath, kIgnore);
  REQUIRE_FALSE(reader.ok());
  CHECK(reader.error().code == Errc::kBusy);
  const auto info = read_log_info(kLogPath);
  REQUIRE_FALSE(info.ok());
  CHECK(info.error().code == Errc::kBusy);
  journal.reset();
  // While one reads, others may read but nobody may write.
  const auto scanned = scan_log(kLogPath, [](const RecoveredCheckpoint&) { return Status{}; });
  CHECK(scanned.ok());
  const auto reading = LogDevice::open(kLogPath, DeviceMode::kReadOnly, false);
  REQUIRE(reading.ok());
  CHECK(read_log_info(kLogPath).ok());
  const auto writer = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE_FALSE(writer.ok());
  CHECK(writer.error().code == Errc::kBusy);
}

TEST_CASE("the real file system's lock refuses a second journal too") {
  const ScratchDirectory directory;
  const std::string log = directory / "log";
  REQUIRE(create_log(log, kBuffered).ok());
  auto journal = Journal::open(log, {.buffered = true}, kIgnore);
  REQUIRE(journal.ok());
  CHECK(open_code(log) == Errc::kBusy);
  journal->reset();
  CHECK(Journal::open(log, {.buffered = true}, kIgnore).ok());
}

TEST_CASE("a forked child is refused at every call, and the parent does not notice") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), later(trace, 2);
  item.regions = later.regions = {"x"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  REQUIRE(journal->force(sequence).ok());
  commit(*journal, {&item});
  auto transaction = journal->begin(100, 1);
  REQUIRE(transaction->log(later).ok());
  world.disk.clear_io_log();
  const Ending ending = run_in_child([&] {
    const auto refused = [](const auto& result) {
      if (result.ok() || result.error().code != Errc::kForked) {
        ::_exit(9);
      }
    };
    refused(transaction->commit());
    refused(journal->begin(100, 1));
    refused(journal->force(next(sequence)));
    refused(journal->force_all());
    refused(journal->close());
    journal.reset();
    if (!world.disk.io_log().empty()) {
      ::_exit(8);
    }
  });
  CHECK(ending.exit_code == 0);
  CHECK(transaction->commit().ok());
  finish(journal);
  CHECK(world.read().size() >= 1);
}

TEST_CASE("whatever fails while a log is made, nothing half-made is left") {
  for (const bool unnamed : {true, false}) {
    std::uint64_t nth = 1;
    for (bool met = true; met; ++nth) {
      CAPTURE(nth);
      for (const int error : {EIO, ENOSPC}) {
        SimDisk disk;
        const ScopedOs scope(disk);
        if (!unnamed) {
          // No O_TMPFILE here: the name comes first.
          disk.inject({.op = SimOp::kOpen, .path = "", .nth = 2, .error = EOPNOTSUPP});
        }
        disk.inject({.op = SimOp::kAny, .nth = nth, .error = error});
        const auto made = create_log(kLogPath, {.size = kMinLogBytes});
        disk.clear_faults();
        met = disk.io_log().size() >= nth;
        if (disk.exists(kLogPath)) {
          const auto info = read_log_info(kLogPath);
          REQUIRE(info.ok());
          CHECK(info->valid_superblocks == 2);
          CHECK(info->valid_states == 2);
        } else {
          CHECK_FALSE(made.ok());
          // Nothing in the way of a second try.
          CHECK(create_log(kLogPath, {.size = kMinLogBytes}).ok());
        }
      }
    }
    CHECK(nth > 8);
  }
}

TEST_CASE("a full disk is said to be full, and a short write there is finished or refused") {
  for (const SimOp op : {SimOp::kAllocate, SimOp::kWrite}) {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.inject({.op = op, .error = ENOSPC, .for_good = true});
    const auto made = create_log(kLogPath, {.size = kMinLogBytes});
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kNoSpace);
    CHECK_FALSE(disk.exists(kLogPath));
  }
  SimDisk disk;
  const ScopedOs scope(disk);
  // No fallocate: the file is written whole all the same.
  disk.inject({.op = SimOp::kAllocate, .error = EOPNOTSUPP});
  CHECK(create_log(kLogPath, {.size = kMinLogBytes}).ok());
}

namespace {

// The last step of making a log fails, after `meanwhile`: the second copy of the superblock of a
// file that had its name first, the directory's fsync of one that got it last.
class LateFailure : public Os {
 public:
  LateFailure(bool unnamed, std::function<void()> meanwhile)
      : unnamed_(unnamed), meanwhile_(std::move(meanwhile)) {}

  int open(const char* path, int flags, mode_t mode) override {
    const bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
    return unnamed && !unnamed_ ? -EOPNOTSUPP : Os::open(path, flags, mode);
  }
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    const auto* words = static_cast<const std::uint64_t*>(parts[0].iov_base);
    if (!unnamed_ && words[0] == format::kSuperblockMagic && offset != 0) {
      return fail();
    }
    return Os::pwritev2(fd, parts, count, offset, flags);
  }
  int fsync(int fd) override {
    struct stat found {};
    const bool directory = ::fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);
    return directory ? fail() : Os::fsync(fd);
  }
  void sleep_ns(std::uint64_t /*duration_ns*/) override {}  // of who waits for the lock

 private:
  int fail() {
    if (meanwhile_) {
      std::exchange(meanwhile_, nullptr)();
    }
    return -EIO;
  }
  const bool unnamed_;
  std::function<void()> meanwhile_;
};

}  // namespace

TEST_CASE("nobody opens a log that is being made, or it could lose its name to a late failure") {
  for (const bool unnamed : {false, true}) {
    CAPTURE(unnamed);
    const ScratchDirectory scratch;
    const std::string log = scratch / "log";
    bool there = false;
    Errc refused{};
    LateFailure os(unnamed, [&] {
      there = std::filesystem::exists(log);
      const auto journal = Journal::open(log, {.buffered = true}, kIgnore);
      refused = journal.ok() ? Errc{} : journal.error().code;
    });
    const ScopedOs scope(os);
    CHECK_FALSE(create_log(log, kBuffered).ok());
    CHECK(there);
    CHECK(refused == Errc::kBusy);
    CHECK_FALSE(std::filesystem::exists(log));
  }
}

TEST_CASE("a power cut while a log is made leaves none or a whole one, after it, the whole one") {
  std::vector<SimSnapshot> moments;
  SimSnapshot done;
  {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.on_io([&](const SimIo&) { moments.push_back(disk.snapshot()); });
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    done = disk.snapshot();
  }
  const auto check = [](const SimSnapshot& moment, std::uint64_t seed, bool must_be) {
    CAPTURE(seed);
    SimDisk after;
    after.boot(moment, seed);
    const ScopedOs scope(after);
    if (!after.exists(kLogPath)) {
      CHECK_FALSE(must_be);
      return;
    }
    const auto journal = Journal::open(kLogPath, {}, kIgnore);
    CHECK(journal.ok());
  };
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    for (const SimSnapshot& moment : moments) {
      check(moment, seed, false);
    }
    check(done, seed, true);
  }
}

// The name comes first there, so a file may be left; but none that says it is a log and is not.
TEST_CASE("without unnamed files a power cut leaves a whole log or no superblock") {
  std::vector<SimSnapshot> moments;
  {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.inject({.op = SimOp::kOpen, .path = "", .nth = 2, .error = EOPNOTSUPP});
    disk.on_io([&](const SimIo&) { moments.push_back(disk.snapshot()); });
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  }
  int left = 0;
  for (std::uint64_t seed = 1; seed <= 32; ++seed) {
    CAPTURE(seed);
    for (const SimSnapshot& moment : moments) {
      SimDisk after;
      after.boot(moment, seed);
      const ScopedOs scope(after);
      if (!after.exists(kLogPath)) {
        continue;
      }
      const auto journal = Journal::open(kLogPath, {}, kIgnore);
      left += journal.ok() ? 0 : 1;
      CHECK((journal.ok() || journal.error().code == Errc::kNotALog));
    }
  }
  CHECK(left > 0);
}

TEST_CASE("blocks are as large as direct I/O wants, up to what the format knows") {
  for (const std::uint32_t align : {512U, 4096U, 16384U, 65536U}) {
    CAPTURE(align);
    SimDisk disk({.direct_align = align});
    const ScopedOs scope(disk);
    const auto made = create_log(kLogPath, {.size = Bytes(8U << 20)});
    if (align > 4096 && !made.ok()) {
      // Pool memory is aligned to pages only: then it must be refused, with nothing left.
      CHECK(made.error().code == Errc::kUnsupported);
      CHECK_FALSE(disk.exists(kLogPath));
      continue;
    }
    REQUIRE(made.ok());
    CHECK(made->block_bytes == std::max(align, 4096U));
    Trace trace;
    Probe item(trace, 1);
    item.regions = {std::string(3 * made->block_bytes + 5, 'x'), "small"};
    {
      auto journal = Journal::open(kLogPath, {}, kIgnore);
      REQUIRE(journal.ok());
      REQUIRE((*journal)->force(commit(**journal, {&item}, 300000)).ok());
    }
    Found found;
    REQUIRE(scan_log(kLogPath, collect_into(found)).ok());
    CHECK(found == Found{{1, {{17, item.regions}}}});
  }
  SimDisk disk({.direct_align = 131072});
  const ScopedOs scope(disk);
  const auto made = create_log(kLogPath, {.size = Bytes(64U << 20)});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().code == Errc::kUnsupported);
  CHECK_FALSE(disk.exists(kLogPath));
}

TEST_CASE("a file system without direct I/O, and one that does not say what it wants") {
  {
    SimDisk disk({.direct_io = false});
    const ScopedOs scope(disk);
    const auto made = create_log(kLogPath, {.size = kMinLogBytes});
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kUnsupported);
    CHECK_FALSE(disk.exists(kLogPath));
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes, .buffered = true}).ok());
    const auto direct = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE_FALSE(direct.ok());
    CHECK(direct.error().code == Errc::kUnsupported);
    CHECK(Journal::open(kLogPath, {.buffered = true}, kIgnore).ok());
  }
  SimDisk disk({.statx_says_align = false, .copy_on_write = true});
  const ScopedOs scope(disk);
  const auto made = create_log(kLogPath, {.size = kMinLogBytes});
  REQUIRE(made.ok());
  CHECK(made->block_bytes == 4096);
  CHECK_FALSE(made->copy_on_write);  // it was asked for in-place writes
  CHECK(Journal::open(kLogPath, {}, kIgnore).ok());
}

TEST_CASE("a device that has failed once touches its file no more and keeps its first error") {
  for (const SimOp op : {SimOp::kWrite, SimOp::kFlush}) {
    LogWorld world;
    auto device = LogDevice::open(kLogPath, DeviceMode::kReadWrite, false);
    REQUIRE(device.ok());
    void* block = kvmalloc(4096);
    const auto write = [&](std::uint64_t offset) {
      struct iovec part {
        block, 4096
      };
      return (*device)->write(offset, &part, 1);
    };
    CHECK(write(8192).ok());
    CHECK((*device)->flush().ok());
    world.disk.inject({.op = op, .nth = 1, .error = op == SimOp::kWrite ? EIO : EREMOTEIO});
    const Status first = op == SimOp::kWrite ? write(12288) : (*device)->flush();
    REQUIRE_FALSE(first.ok());
    world.disk.clear_faults();
    world.disk.clear_io_log();
    for (const Status& later : {write(16384), (*device)->flush(), write(8192)}) {
      REQUIRE_FALSE(later.ok());
      CHECK(later.error().sys_errno == first.error().sys_errno);
      CHECK(later.error().value == first.error().value);
    }
    CHECK(world.disk.io_log().empty());
    kvfree(block);
  }
}

TEST_CASE("a log cut short is damaged, not unknown") {
  LogWorld world({.size = Bytes(4U << 20)});
  SimContent image = world.disk.image(kLogPath);
  for (const std::size_t bytes : {image.size() - 4096, std::size_t{1} << 20}) {
    image.resize(bytes);
    world.disk.set_image(kLogPath, image);
    const auto opened = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == Errc::kDamaged);
    CHECK(opened.error().value == bytes);
  }
}
