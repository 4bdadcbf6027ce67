#include "support/sim_disk.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/death.h"

using namespace keel;

namespace {

constexpr char kLog[] = "/sim/log";
using Effect = SimFault::Effect;

ssize_t put(Os& disk, int fd, std::uint64_t offset, const std::string& text, int flags = 0) {
  std::string copy = text;
  const struct iovec part { copy.data(), copy.size() };
  return disk.pwritev2(fd, &part, 1, offset, flags);
}

std::string get(Os& disk, int fd, std::uint64_t offset, std::size_t bytes) {
  std::string text(bytes, '?');
  const struct iovec part { text.data(), text.size() };
  const ssize_t got = disk.preadv2(fd, &part, 1, offset, 0);
  REQUIRE(got >= 0);
  text.resize(static_cast<std::size_t>(got));
  return text;
}

std::string text_of(const SimContent& content) {
  std::string text(content.size(), '\0');
  std::memcpy(text.data(), content.data(), content.size());
  return text;
}

SimContent filled(std::size_t bytes, char with) {
  return SimContent(bytes, static_cast<std::byte>(with));
}

std::string sectors(std::size_t count, char with) { return std::string(count * 512, with); }

SimMask all(SimFate fate) {
  return [fate](const SimSector&) { return fate; };
}

// A disk with /sim/log of `count` stable sectors of 'o', open.
struct OneFile {
  explicit OneFile(std::size_t count = 8, const SimDiskOptions& options = {}) : disk(options) {
    disk.set_image(kLog, filled(count * 512, 'o'));
    fd = disk.open(kLog, O_RDWR, 0);
    REQUIRE(fd >= SimDisk::kFirstDescriptor);
  }
  std::string content() const { return text_of(disk.image(kLog)); }

  SimDisk disk;
  int fd = -1;
};

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};
std::unique_ptr<char, FreeDeleter> aligned_memory(std::size_t bytes) {
  return std::unique_ptr<char, FreeDeleter>(static_cast<char*>(std::aligned_alloc(4096, bytes)));
}

}  // namespace

TEST_CASE("sim disk: shared chunks keep copies apart, and a cut tail reads as zeros") {
  SimBytes bytes(filled(40'000, 'a'));
  const SimBytes before = bytes;
  const std::byte mark{'b'};
  bytes.write(20'000, &mark, 1);
  bytes.write(50'000, &mark, 1);
  CHECK(before.flat() == filled(40'000, 'a'));
  CHECK(bytes.size() == 50'001);
  CHECK(bytes.flat()[20'000] == mark);
  CHECK(bytes.flat()[45'000] == std::byte{0});
  bytes.resize(10);
  bytes.resize(100);
  CHECK(bytes.flat()[9] == std::byte{'a'});
  CHECK(bytes.flat()[10] == std::byte{0});
  CHECK(before.flat() == filled(40'000, 'a'));
}

TEST_CASE("sim disk: reads see a write at once, a crash may lose it, a flush keeps it") {
  OneFile file;
  CHECK(put(file.disk, file.fd, 512, sectors(1, 'n')) == 512);
  CHECK(get(file.disk, file.fd, 512, 512) == sectors(1, 'n'));

  SUBCASE("lost") {
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.content() == sectors(8, 'o'));
  }
  SUBCASE("kept by luck") {
    file.disk.crash_with(all(SimFate::kKeep));
    CHECK(file.content() == sectors(1, 'o') + sectors(1, 'n') + sectors(6, 'o'));
  }
  SUBCASE("flushed, then written again") {
    CHECK(file.disk.fdatasync(file.fd) == 0);
    CHECK(put(file.disk, file.fd, 512, sectors(1, 'x')) == 512);
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.content() == sectors(1, 'o') + sectors(1, 'n') + sectors(6, 'o'));
  }
}

TEST_CASE("sim disk: a flush covers its own file only") {
  OneFile file(1);
  file.disk.set_image("/sim/other", filled(512, 'o'));
  const int other = file.disk.open("/sim/other", O_RDWR, 0);
  CHECK(put(file.disk, file.fd, 0, sectors(1, 'n')) == 512);
  CHECK(put(file.disk, other, 0, sectors(1, 'n')) == 512);
  CHECK(file.disk.fsync(other) == 0);
  file.disk.crash_with(all(SimFate::kDrop));
  CHECK(file.content() == sectors(1, 'o'));
  CHECK(text_of(file.disk.image("/sim/other")) == sectors(1, 'n'));
}

TEST_CASE("sim disk: a mask decides sector by sector, and reaches every subset") {
  OneFile file(4);
  put(file.disk, file.fd, 0, sectors(2, 'a'));
  put(file.disk, file.fd, 512, sectors(2, 'b'));
  const SimSnapshot moment = file.disk.snapshot();
  REQUIRE(moment.sectors() == 4);
  REQUIRE(moment.writes() == 2);

  std::set<std::string> outcomes;
  std::vector<SimSector> asked;
  for (unsigned kept = 0; kept < 16; ++kept) {
    SimDisk after;
    asked.clear();
    after.boot_with(moment, [&](const SimSector& sector) {
      asked.push_back(sector);
      asked.back().path = {};
      return (kept >> sector.index & 1) != 0 ? SimFate::kKeep : SimFate::kDrop;
    });
    outcomes.insert(text_of(after.image(kLog)));
  }
  // Three sectors: old or a; old, a or b; old or b. The fourth was never written.
  CHECK(outcomes.size() == 2 * 3 * 2);
  CHECK(outcomes.count(sectors(1, 'a') + sectors(2, 'b') + sectors(1, 'o')) == 1);
  CHECK(outcomes.count(sectors(1, 'o') + sectors(1, 'a') + sectors(1, 'b') + sectors(1, 'o')) == 1);
  REQUIRE(asked.size() == 4);
  CHECK(asked[3].write == 1);
  CHECK(asked[3].sector == 1);
  CHECK(asked[3].offset == 1024);
}

TEST_CASE("sim disk: damage is garbage over the whole sector, or half of the new") {
  OneFile file(16);
  put(file.disk, file.fd, 4096, sectors(1, 'n'));
  SUBCASE("torn") {
    file.disk.crash_with(all(SimFate::kTorn));
    CHECK(file.content().substr(4096, 512) == std::string(256, 'n') + std::string(256, 'o'));
  }
  SUBCASE("garbage at 512") {
    file.disk.crash_with(all(SimFate::kGarbage));
    CHECK(file.content().substr(4096, 512).find(std::string(16, 'n')) == std::string::npos);
    CHECK(file.content().substr(4608) == sectors(7, 'o'));
  }
  SUBCASE("garbage at 4096 hits the neighbours in the physical sector too") {
    put(file.disk, file.fd, 1024, sectors(1, 'n'));
    file.disk.crash_with(all(SimFate::kGarbage), 4096);
    for (std::size_t at = 0; at < 8192; at += 512) {
      CHECK(file.content().substr(at, 512) != sectors(1, 'o'));
    }
    CHECK(file.content().size() == 8192);
  }
  SUBCASE("garbage differs by seed") {
    SimCrash odds;
    odds.keep_weight = 0;
    odds.drop_weight = 0;
    odds.ordered_percent = 0;
    odds.garbage_percent = 100;
    const SimSnapshot moment = file.disk.snapshot();
    CHECK(moment.file(kLog).materialize(1, odds) != moment.file(kLog).materialize(2, odds));
  }
}

TEST_CASE("sim disk: a seed gives one outcome, many seeds give every kind of it") {
  OneFile file(8);
  put(file.disk, file.fd, 0, sectors(2, 'a'));
  put(file.disk, file.fd, 1024, sectors(2, 'b'));
  const SimSnapshot moment = file.disk.snapshot();
  std::set<std::string> outcomes;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const SimContent content = moment.file(kLog).materialize(seed);
    CHECK(content == moment.file(kLog).materialize(seed));
    CHECK(text_of(content).substr(2048) == sectors(4, 'o'));
    outcomes.insert(text_of(content));
  }
  CHECK(outcomes.count(sectors(8, 'o')) == 1);
  CHECK(outcomes.count(sectors(2, 'a') + sectors(2, 'b') + sectors(4, 'o')) == 1);
  CHECK(outcomes.count(sectors(2, 'a') + sectors(6, 'o')) == 1);
  CHECK(outcomes.count(sectors(2, 'o') + sectors(2, 'b') + sectors(4, 'o')) == 1);
  CHECK(outcomes.size() > 50);

  SimCrash keep;
  keep.ordered_percent = 0;
  keep.drop_weight = 0;
  keep.tear_weight = 0;
  SimCrash drop = keep;
  drop.keep_weight = 0;
  drop.drop_weight = 1;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    CHECK(moment.file(kLog).materialize(seed, keep) == file.disk.image(kLog));
    CHECK(moment.file(kLog).materialize(seed, drop) == filled(4096, 'o'));
  }
}

TEST_CASE("sim disk: an ordered crash keeps a prefix of the writes") {
  OneFile file(4);
  for (unsigned i = 0; i < 4; ++i) {
    put(file.disk, file.fd, i * 512, sectors(1, 'n'));
  }
  SimCrash odds;
  odds.ordered_percent = 100;
  odds.garbage_percent = 0;
  odds.torn_percent = 0;
  std::set<std::string> outcomes;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    outcomes.insert(text_of(file.disk.snapshot().file(kLog).materialize(seed, odds)));
  }
  CHECK(outcomes.size() == 5);
  for (std::size_t kept = 0; kept <= 4; ++kept) {
    CHECK(outcomes.count(sectors(kept, 'n') + sectors(4 - kept, 'o')) == 1);
  }
}

TEST_CASE("sim disk: a durable write survives without a flush and keeps its place") {
  OneFile file(2);
  put(file.disk, file.fd, 0, sectors(2, 'a'));
  CHECK(put(file.disk, file.fd, 512, sectors(1, 'd'), RWF_DSYNC) == 512);
  CHECK(file.disk.snapshot().sectors() == 2);
  SUBCASE("the older write is lost") {
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.content() == sectors(1, 'o') + sectors(1, 'd'));
  }
  SUBCASE("the older write is kept, and does not come back over it") {
    file.disk.crash_with(all(SimFate::kKeep));
    CHECK(file.content() == sectors(1, 'a') + sectors(1, 'd'));
  }
  SUBCASE("O_DSYNC on the descriptor says the same") {
    const int synced = file.disk.open(kLog, O_RDWR | O_DSYNC, 0);
    put(file.disk, synced, 0, sectors(1, 's'));
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.content() == sectors(1, 's') + sectors(1, 'd'));
  }
}

TEST_CASE("sim disk: a size that no flush covered may be lost") {
  OneFile file(1);
  CHECK(file.disk.ftruncate(file.fd, 2048) == 0);
  CHECK(file.disk.image(kLog).size() == 2048);
  SUBCASE("lost") {
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.disk.image(kLog).size() == 512);
  }
  SUBCASE("kept") {
    CHECK(file.disk.fdatasync(file.fd) == 0);
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.content() == sectors(1, 'o') + sectors(3, '\0'));
  }
}

TEST_CASE("sim disk: fallocate grows, keeps or zeroes, and fails when asked") {
  OneFile file(2);
  CHECK(file.disk.fallocate(file.fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0);
  CHECK(file.disk.image(kLog).size() == 1024);
  CHECK(file.disk.fallocate(file.fd, 0, 0, 2048) == 0);
  CHECK(file.disk.image(kLog).size() == 2048);
  CHECK(file.disk.fallocate(file.fd, FALLOC_FL_ZERO_RANGE, 512, 512) == 0);
  CHECK(file.content().substr(0, 1024) == sectors(1, 'o') + sectors(1, '\0'));
  CHECK(file.disk.fallocate(file.fd, FALLOC_FL_COLLAPSE_RANGE, 0, 512) == -EOPNOTSUPP);
  file.disk.inject({.op = SimOp::kAllocate, .error = ENOSPC});
  CHECK(file.disk.fallocate(file.fd, 0, 0, 1 << 20) == -ENOSPC);
  CHECK(file.disk.image(kLog).size() == 2048);
}

TEST_CASE("sim disk: a name needs an fsync of the directory") {
  SimDisk disk;
  const int directory = disk.open("/sim", O_RDONLY | O_DIRECTORY, 0);
  REQUIRE(directory >= 0);
  const int fd = disk.open(kLog, O_RDWR | O_CREAT | O_EXCL, 0600);
  REQUIRE(fd >= 0);
  CHECK(put(disk, fd, 0, sectors(1, 'n')) == 512);
  CHECK(disk.fsync(fd) == 0);
  const auto drop_names = [](const SimSector& sector) {
    return sector.kind == SimSector::Kind::kName ? SimFate::kDrop : SimFate::kKeep;
  };
  SUBCASE("not synced: gone, though its content was flushed") {
    disk.crash_with(drop_names);
    CHECK_FALSE(disk.exists(kLog));
    CHECK(disk.open(kLog, O_RDWR, 0) == -ENOENT);
  }
  SUBCASE("synced: there") {
    CHECK(disk.fsync(directory) == 0);
    disk.crash_with(drop_names);
    CHECK(text_of(disk.image(kLog)) == sectors(1, 'n'));
  }
  SUBCASE("an unlink that was not synced comes back, content and all") {
    CHECK(disk.fsync(directory) == 0);
    CHECK(disk.unlink(kLog) == 0);
    CHECK(disk.close(fd) == 0);
    CHECK(disk.open(kLog, O_RDWR, 0) == -ENOENT);
    disk.crash_with(drop_names);
    CHECK(text_of(disk.image(kLog)) == sectors(1, 'n'));
  }
  SUBCASE("an unsynced unlink is lost, the unsynced creation before it is not") {
    CHECK(disk.unlink(kLog) == 0);
    CHECK(disk.close(fd) == 0);
    disk.crash_with([](const SimSector& sector) {
      return sector.index == 0 ? SimFate::kKeep : SimFate::kDrop;
    });
    CHECK(text_of(disk.image(kLog)) == sectors(1, 'n'));
  }
  SUBCASE("seeds find both") {
    const SimSnapshot moment = disk.snapshot();
    std::set<bool> there;
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      disk.boot(moment, seed);
      there.insert(disk.exists(kLog));
    }
    CHECK(there.size() == 2);
  }
}

TEST_CASE("sim disk: an unnamed file gets its name without replacing one") {
  OneFile file(1);
  const int fd = file.disk.open("/sim", O_TMPFILE | O_RDWR, 0600);
  REQUIRE(fd >= 0);
  put(file.disk, fd, 0, sectors(1, 'u'));
  struct stat status {};
  CHECK(file.disk.fstat(fd, &status) == 0);
  CHECK(status.st_nlink == 0);
  CHECK(file.disk.link_unnamed(fd, kLog) == -EEXIST);
  CHECK(file.disk.link_unnamed(file.fd, "/sim/second") == -ENOENT);
  CHECK(file.disk.link_unnamed(fd, "/elsewhere") == -EXDEV);
  CHECK(file.disk.link_unnamed(fd, "/sim/new") == 0);
  CHECK(file.content() == sectors(1, 'o'));
  CHECK(text_of(file.disk.image("/sim/new")) == sectors(1, 'u'));
  file.disk.crash_with(all(SimFate::kDrop));
  CHECK_FALSE(file.disk.exists("/sim/new"));
}

TEST_CASE("sim disk: open answers as Linux does") {
  OneFile file(1);
  SimDisk& disk = file.disk;
  CHECK(disk.open("/sim/none", O_RDWR, 0) == -ENOENT);
  CHECK(disk.open("/sim/no/directory", O_RDWR | O_CREAT, 0600) == -ENOENT);
  CHECK(disk.open(kLog, O_RDWR | O_CREAT | O_EXCL, 0600) == -EEXIST);
  CHECK(disk.open(kLog, O_RDONLY | O_DIRECTORY, 0) == -ENOTDIR);
  CHECK(disk.open("/sim", O_RDWR, 0) == -EISDIR);
  const int reader = disk.open(kLog, O_RDONLY, 0);
  CHECK(put(disk, reader, 0, "x") == -EBADF);
  CHECK(disk.close(reader) == 0);
  CHECK(disk.close(reader) == -EBADF);
  CHECK(disk.fdatasync(reader) == -EBADF);
  CHECK(disk.open(kLog, O_RDWR | O_TRUNC, 0) > reader);
  CHECK(disk.image(kLog).empty());
}

TEST_CASE("sim disk: stat tells kind, mode, owner, links, size and alignment") {
  OneFile file(3, {.direct_align = 4096});
  file.disk.set_owner(kLog, 0644, 1234);
  struct stat status {};
  REQUIRE(file.disk.fstat(file.fd, &status) == 0);
  CHECK(S_ISREG(status.st_mode));
  CHECK((status.st_mode & 07777) == 0644);
  CHECK(status.st_uid == 1234);
  CHECK(status.st_nlink == 1);
  CHECK(status.st_size == 1536);

  struct statx extended {};
  REQUIRE(file.disk.statx(file.fd, STATX_BASIC_STATS | STATX_DIOALIGN, &extended) == 0);
  CHECK((extended.stx_mask & STATX_DIOALIGN) != 0);
  CHECK(extended.stx_dio_offset_align == 4096);
  CHECK(extended.stx_size == 1536);

  OneFile silent(1, {.statx_says_align = false});
  REQUIRE(silent.disk.statx(silent.fd, STATX_DIOALIGN, &extended) == 0);
  CHECK((extended.stx_mask & STATX_DIOALIGN) == 0);
}

TEST_CASE("sim disk: a copy-on-write file system says so, and an empty file may leave it") {
  OneFile plain(1);
  CHECK(plain.disk.is_copy_on_write(plain.fd) == 0);
  CHECK(plain.disk.set_no_copy_on_write(plain.fd) == -EOPNOTSUPP);
  OneFile file(1, {.copy_on_write = true});
  CHECK(file.disk.is_copy_on_write(file.fd) == 1);
  CHECK(file.disk.set_no_copy_on_write(file.fd) == -EINVAL);
  CHECK(file.disk.ftruncate(file.fd, 0) == 0);
  CHECK(file.disk.set_no_copy_on_write(file.fd) == 0);
  CHECK(file.disk.is_copy_on_write(file.fd) == 0);
  file.disk.crash(1);
  CHECK(file.disk.is_copy_on_write(file.disk.open(kLog, O_RDWR, 0)) == 0);
}

TEST_CASE("sim disk: O_DIRECT wants offset, length and address aligned") {
  OneFile file(16, {.direct_align = 4096});
  const int fd = file.disk.open(kLog, O_RDWR | O_DIRECT, 0);
  const auto memory = aligned_memory(8192);
  std::memset(memory.get(), 'd', 8192);
  const auto write = [&](std::size_t skew, std::size_t bytes, std::uint64_t offset) {
    const struct iovec part { memory.get() + skew, bytes };
    return file.disk.pwritev2(fd, &part, 1, offset, 0);
  };
  CHECK(write(0, 4096, 4096) == 4096);
  CHECK(write(0, 4096, 512) == -EINVAL);
  CHECK(write(0, 512, 0) == -EINVAL);
  CHECK(write(512, 4096, 0) == -EINVAL);
  const struct iovec part { memory.get() + 1, 4096 };
  CHECK(file.disk.preadv2(fd, &part, 1, 0, 0) == -EINVAL);
  CHECK(put(file.disk, file.fd, 3, "buffered may be anywhere") > 0);
}

TEST_CASE(
    "sim disk: a file system without O_DIRECT refuses it, and creates the name all the same") {
  SimDisk disk({.direct_io = false});
  CHECK(disk.open("/sim", O_TMPFILE | O_RDWR | O_DIRECT, 0600) == -EINVAL);
  CHECK(disk.open(kLog, O_RDWR | O_CREAT | O_DIRECT, 0600) == -EINVAL);
  CHECK(disk.exists(kLog));
  CHECK(disk.open(kLog, O_RDWR, 0) >= SimDisk::kFirstDescriptor);
}

TEST_CASE("sim disk: a lock belongs to one open file description, until close or crash") {
  OneFile file(1);
  const int second = file.disk.open(kLog, O_RDWR, 0);
  CHECK(file.disk.lock_exclusive(file.fd) == 0);
  CHECK(file.disk.lock_exclusive(file.fd) == 0);
  CHECK(file.disk.lock_exclusive(second) == -EAGAIN);
  CHECK(file.disk.close(file.fd) == 0);
  CHECK(file.disk.lock_exclusive(second) == 0);
  file.disk.crash(1);
  const int third = file.disk.open(kLog, O_RDWR, 0);
  CHECK(file.disk.lock_exclusive(third) == 0);

  const int reader = file.disk.open(kLog, O_RDONLY, 0);
  const int other_reader = file.disk.open(kLog, O_RDONLY, 0);
  CHECK(file.disk.lock_shared(reader) == -EAGAIN);
  CHECK(file.disk.lock_exclusive(reader) == -EBADF);
  CHECK(file.disk.close(third) == 0);
  CHECK(file.disk.lock_shared(reader) == 0);
  CHECK(file.disk.lock_shared(other_reader) == 0);
  CHECK(file.disk.lock_exclusive(file.disk.open(kLog, O_RDWR, 0)) == -EAGAIN);
}

TEST_CASE("sim disk: descriptors die in a crash and may still be closed") {
  OneFile file(1);
  file.disk.crash(1);
  CHECK(put(file.disk, file.fd, 0, sectors(1, 'z')) == -EIO);
  CHECK(file.disk.fdatasync(file.fd) == -EIO);
  CHECK(file.disk.close(file.fd) == 0);
  CHECK(file.content() == sectors(1, 'o'));
  const int again = file.disk.open(kLog, O_RDWR, 0);
  CHECK(again > file.fd);
  CHECK(file.disk.snapshot().writes() == 0);
}

TEST_CASE("sim disk: a descriptor of another disk ends the program") {
  OneFile file(1);
  OneFile other(1);
  const auto ends = [](const auto& act) {
    return keel_test::run_in_child(act).aborted_with("of another simulated disk");
  };
  CHECK(ends([&] { (void)put(other.disk, file.fd, 0, "x"); }));
  CHECK(ends([&] { (void)put(file.disk, other.fd, 0, "x"); }));
  CHECK(ends([&] { (void)other.disk.fdatasync(file.fd); }));
  CHECK(ends([&] { (void)other.disk.close(file.fd); }));
}

TEST_CASE("sim disk: more opens than it has numbers pass over those that are in use") {
  OneFile file;
  for (int opened = 0; opened < SimDisk::kDescriptors + 10; ++opened) {
    const int fd = file.disk.open(kLog, O_RDONLY, 0);
    REQUIRE(fd >= SimDisk::kFirstDescriptor);
    REQUIRE(fd != file.fd);
    REQUIRE(file.disk.close(fd) == 0);
  }
  CHECK(put(file.disk, file.fd, 0, "still open") > 0);
}

TEST_CASE("sim disk: every path outside /sim is the kernel's") {
  SimDisk disk;
  ScopedOs scope(disk);
  const int fd = os().open("/dev/zero", O_RDONLY, 0);
  REQUIRE(fd >= 0);
  CHECK(fd < SimDisk::kFirstDescriptor);
  CHECK(get(os(), fd, 0, 4) == std::string(4, '\0'));
  CHECK(os().close(fd) == 0);
  void* mapped = nullptr;
  disk.set_image(kLog, filled(4096, 'o'));
  const int simulated = os().open(kLog, O_RDONLY, 0);
  disk.clear_io_log();
  CHECK(os().mmap(nullptr, 4096, PROT_READ, MAP_SHARED, simulated, 0, &mapped) == -ENODEV);
  CHECK(disk.io_log().empty());
}

TEST_CASE("sim disk: the log tells every operation in order, the hook sees each") {
  OneFile file(2);
  file.disk.clear_io_log();
  std::vector<SimSnapshot> moments;
  std::vector<std::uint64_t> seen;
  file.disk.on_io([&](const SimIo& io) {
    seen.push_back(io.sequence);
    moments.push_back(file.disk.snapshot());
  });
  put(file.disk, file.fd, 0, sectors(1, 'a'));
  file.disk.fdatasync(file.fd);
  put(file.disk, file.fd, 512, sectors(1, 'b'));
  get(file.disk, file.fd, 0, 512);
  file.disk.on_io(nullptr);

  const std::vector<SimIo> log = file.disk.io_log();
  REQUIRE(log.size() == 4);
  CHECK(log[0].op == SimOp::kWrite);
  CHECK(log[1].op == SimOp::kFlush);
  CHECK(log[2].op == SimOp::kWrite);
  CHECK(log[3].op == SimOp::kRead);
  CHECK(log[2].offset == 512);
  CHECK(log[2].result == 512);
  CHECK(log[2].path == kLog);
  REQUIRE(seen.size() == 4);
  for (std::size_t i = 0; i < log.size(); ++i) {
    CHECK(log[i].sequence == seen[i]);
  }
  // The moments stay what they were while the disk went on.
  REQUIRE(moments.size() == 4);
  const auto lost = [&](std::size_t i) {
    return text_of(moments[i].file(kLog).materialize(all(SimFate::kDrop)));
  };
  CHECK(lost(0) == sectors(2, 'o'));
  CHECK(lost(1) == sectors(1, 'a') + sectors(1, 'o'));
  CHECK(lost(2) == lost(1));
  CHECK(text_of(moments[2].file(kLog).materialize(all(SimFate::kKeep))) == file.content());
  CHECK(moments[2].file(kLog).pending.at(0).sequence == log[2].sequence);
}

TEST_CASE("sim disk: the hook may crash the disk at any operation") {
  OneFile file(1);
  file.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && io.result > 0) {
      file.disk.crash_with(all(SimFate::kDrop));
    }
  });
  CHECK(put(file.disk, file.fd, 0, sectors(1, 'n')) == 512);
  CHECK(file.disk.fdatasync(file.fd) == -EIO);
  CHECK(file.content() == sectors(1, 'o'));
}

TEST_CASE("sim disk: the k-th operation fails, once or for good") {
  OneFile file(4);
  SUBCASE("a write, once; what landed may survive") {
    file.disk.inject({.op = SimOp::kWrite, .nth = 2, .error = ENOSPC, .bytes = 700});
    CHECK(put(file.disk, file.fd, 0, sectors(1, 'a')) == 512);
    CHECK(put(file.disk, file.fd, 512, sectors(2, 'b')) == -ENOSPC);
    CHECK(file.content() == sectors(1, 'a') + sectors(1, 'b') + sectors(2, 'o'));
    CHECK(put(file.disk, file.fd, 512, sectors(1, 'c')) == 512);
    CHECK(file.disk.io_log().at(2).faulty);
    CHECK_FALSE(file.disk.io_log().at(3).faulty);
  }
  SUBCASE("a durable write; what landed of it is not durable") {
    file.disk.inject({.op = SimOp::kWrite, .bytes = 512});
    CHECK(put(file.disk, file.fd, 0, sectors(1, 'a'), RWF_DSYNC) == -EIO);
    CHECK(file.content() == sectors(1, 'a') + sectors(3, 'o'));
    file.disk.crash_with(all(SimFate::kDrop));
    CHECK(file.content() == sectors(4, 'o'));
  }
  SUBCASE("reads, for good") {
    file.disk.inject({.op = SimOp::kRead, .nth = 2, .for_good = true});
    char byte = 0;
    const struct iovec part { &byte, 1 };
    CHECK(file.disk.preadv2(file.fd, &part, 1, 0, 0) == 1);
    CHECK(file.disk.preadv2(file.fd, &part, 1, 0, 0) == -EIO);
    CHECK(file.disk.preadv2(file.fd, &part, 1, 0, 0) == -EIO);
    file.disk.clear_faults();
    CHECK(file.disk.preadv2(file.fd, &part, 1, 0, 0) == 1);
  }
  SUBCASE("a flush: what was pending stays so") {
    file.disk.inject({.op = SimOp::kFlush});
    put(file.disk, file.fd, 0, sectors(1, 'a'));
    CHECK(file.disk.fdatasync(file.fd) == -EIO);
    CHECK(file.disk.snapshot().sectors() == 1);
    CHECK(file.disk.fdatasync(file.fd) == 0);
    CHECK(file.disk.snapshot().sectors() == 0);
  }
  SUBCASE("any operation on one path") {
    file.disk.set_image("/sim/other", {});
    file.disk.inject({.path = "/sim/other", .nth = 2, .error = EACCES});
    put(file.disk, file.fd, 0, sectors(1, 'a'));
    const int other = file.disk.open("/sim/other", O_RDWR, 0);
    CHECK(other >= 0);
    CHECK(put(file.disk, file.fd, 0, sectors(1, 'a')) == 512);
    CHECK(file.disk.lock_exclusive(other) == -EACCES);
  }
}

TEST_CASE("sim disk: every kind of operation can be failed") {
  OneFile file(1);
  SimDisk& disk = file.disk;
  const int unnamed = disk.open("/sim", O_TMPFILE | O_RDWR, 0600);
  disk.inject({.error = EINTR, .for_good = true});
  struct stat status {};
  struct statx extended {};
  CHECK(disk.open(kLog, O_RDWR, 0) == -EINTR);
  CHECK(disk.fstat(file.fd, &status) == -EINTR);
  CHECK(disk.statx(file.fd, 0, &extended) == -EINTR);
  CHECK(disk.ftruncate(file.fd, 0) == -EINTR);
  CHECK(disk.fallocate(file.fd, 0, 0, 4096) == -EINTR);
  CHECK(disk.lock_exclusive(file.fd) == -EINTR);
  CHECK(disk.link_unnamed(unnamed, "/sim/new") == -EINTR);
  CHECK(disk.unlink(kLog) == -EINTR);
  CHECK(disk.fsync(file.fd) == -EINTR);
  CHECK(file.content() == sectors(1, 'o'));
  CHECK_FALSE(disk.exists("/sim/new"));
}

TEST_CASE("sim disk: a short write or read moves whole sectors and says so") {
  OneFile file(4);
  file.disk.inject({.op = SimOp::kWrite, .effect = Effect::kShort, .bytes = 1100});
  CHECK(put(file.disk, file.fd, 0, sectors(4, 's')) == 1024);
  CHECK(file.content() == sectors(2, 's') + sectors(2, 'o'));
  file.disk.inject({.op = SimOp::kRead, .effect = Effect::kShort, .bytes = 512});
  CHECK(get(file.disk, file.fd, 0, 2048).size() == 512);
}

TEST_CASE("sim disk: a flush may lie, or fail and drop what was pending") {
  OneFile file(1);
  put(file.disk, file.fd, 0, sectors(1, 'n'));
  SUBCASE("a lie") {
    file.disk.inject({.op = SimOp::kFlush, .effect = Effect::kLie});
    CHECK(file.disk.fdatasync(file.fd) == 0);
  }
  SUBCASE("fsyncgate: the second flush succeeds, reads show the data, the crash loses it") {
    file.disk.inject({.op = SimOp::kFlush, .effect = Effect::kFailAndDrop});
    CHECK(file.disk.fdatasync(file.fd) == -EIO);
    CHECK(file.disk.fdatasync(file.fd) == 0);
    CHECK(get(file.disk, file.fd, 0, 512) == sectors(1, 'n'));
  }
  file.disk.crash_with(all(SimFate::kDrop));
  CHECK(file.content() == sectors(1, 'o'));
}

TEST_CASE("sim disk: writes get lost, go elsewhere or arrive with a wrong bit") {
  OneFile file(4);
  SUBCASE("lost") {
    file.disk.inject({.op = SimOp::kWrite, .effect = Effect::kLie});
    CHECK(put(file.disk, file.fd, 0, sectors(1, 'n')) == 512);
    CHECK(file.content() == sectors(4, 'o'));
  }
  SUBCASE("elsewhere") {
    file.disk.inject({.op = SimOp::kWrite, .effect = Effect::kMisdirect, .offset = 1536});
    CHECK(put(file.disk, file.fd, 0, sectors(1, 'n')) == 512);
    CHECK(file.content() == sectors(3, 'o') + sectors(1, 'n'));
  }
  SUBCASE("a wrong bit written") {
    file.disk.inject({.op = SimOp::kWrite, .effect = Effect::kFlipBit, .bit = 8});
    CHECK(put(file.disk, file.fd, 0, sectors(1, 'n')) == 512);
    CHECK(file.content().substr(0, 3) == std::string{'n', 'n' ^ 1, 'n'});
  }
  SUBCASE("a wrong bit read, once") {
    file.disk.inject({.op = SimOp::kRead, .effect = Effect::kFlipBit, .bit = 0});
    CHECK(get(file.disk, file.fd, 0, 1) == std::string{'o' ^ 1});
    CHECK(get(file.disk, file.fd, 0, 1) == "o");
  }
  SUBCASE("a read from elsewhere") {
    put(file.disk, file.fd, 1024, sectors(1, 'e'));
    file.disk.inject({.op = SimOp::kRead, .effect = Effect::kMisdirect, .offset = 1024});
    CHECK(get(file.disk, file.fd, 0, 512) == sectors(1, 'e'));
  }
}

TEST_CASE("sim disk: rot hits stable content and stays through a crash") {
  OneFile file(1);
  file.disk.flip_bit(kLog, 7, 0);
  CHECK(get(file.disk, file.fd, 7, 1) == std::string{'o' ^ 1});
  file.disk.crash(3);
  CHECK(file.content()[7] == ('o' ^ 1));
}

TEST_CASE("sim disk: random numbers repeat by seed and never within one history") {
  SimDisk first({.seed = 7});
  SimDisk same({.seed = 7});
  SimDisk other({.seed = 8});
  const std::uint64_t number = first.random64();
  CHECK(number == same.random64());
  CHECK(number != other.random64());
  const std::uint64_t second = first.random64();
  CHECK(second != number);
  same.boot(first.snapshot(), 1);
  const std::uint64_t rebooted = same.random64();
  CHECK(rebooted != number);
  CHECK(rebooted != second);
}

TEST_CASE("sim disk: virtual time moves by sleep, advance and slow I/O only") {
  OneFile file(1, {.virtual_clock = true});
  const std::uint64_t start = file.disk.monotonic_ns();
  const std::uint64_t real = file.disk.realtime_ns();
  CHECK(file.disk.monotonic_ns() == start);
  file.disk.sleep_ns(1'000'000'000'000);
  file.disk.advance_clock(5);
  file.disk.inject({.op = SimOp::kWrite, .effect = Effect::kSlow, .delay_ns = 100});
  CHECK(put(file.disk, file.fd, 0, sectors(1, 'n')) == 512);
  CHECK(file.disk.monotonic_ns() - start == 1'000'000'000'105);
  CHECK(file.disk.realtime_ns() - real == 1'000'000'000'105);
  const std::uint64_t kernel = Os().monotonic_ns();
  CHECK(SimDisk().monotonic_ns() >= kernel);
}

TEST_CASE("sim disk: threads write, flush and look on while snapshots are crashed") {
  OneFile file(64);
  std::atomic<std::uint64_t> moments{0};
  file.disk.on_io([&](const SimIo& io) {
    const SimSnapshot moment = file.disk.snapshot();
    if (moment.file(kLog).materialize(io.sequence).size() == 64 * 512) {
      moments.fetch_add(1, std::memory_order_relaxed);
    }
  });
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 4; ++number) {
    threads.emplace_back([&file, number] {
      for (unsigned i = 0; i < 50; ++i) {
        put(file.disk, file.fd, (number * 16 + i % 16) * 512, sectors(1, 'n'));
        file.disk.fdatasync(file.fd);
        file.disk.random64();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(moments == 4 * 50 * 2);
  file.disk.crash_with(all(SimFate::kDrop));
  CHECK(file.content() == sectors(64, 'n'));
}

// The loop of the head comment of sim_disk.h, with a client that is right and one that forgets its
// flush.
TEST_CASE("sim disk: a crash test finds the missing flush, and clears who does flush") {
  for (const bool flushes : {true, false}) {
    OneFile file(4);
    std::vector<std::pair<SimSnapshot, std::size_t>> moments;  // and how many were acknowledged
    std::size_t acknowledged = 0;
    file.disk.on_io(
        [&](const SimIo&) { moments.emplace_back(file.disk.snapshot(), acknowledged); });
    for (unsigned i = 0; i < 4; ++i) {
      put(file.disk, file.fd, i * 512, sectors(1, 'n'));
      if (flushes) {
        file.disk.fdatasync(file.fd);
      }
      acknowledged = i + 1;
    }
    unsigned lost = 0;
    for (const auto& moment : moments) {
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        SimDisk after;
        after.boot(moment.first, seed);
        const std::string content = text_of(after.image(kLog));
        lost += content.substr(0, moment.second * 512) != sectors(moment.second, 'n') ? 1U : 0U;
      }
    }
    CHECK((lost == 0) == flushes);
  }
}
