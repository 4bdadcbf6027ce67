// faultfs itself, through plain system calls: that it does what a rule says, and nothing else.
#include "fault_fs.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "faultfs/store.h"
#include "support/loop_device.h"
#include "support/skip_case.h"

using namespace keel_test;
using faultfs::Cut;

namespace {

// A mounted faultfs with an open file of zeros.
class Disk {
 public:
  Disk() {
    std::string why;
    fs = FaultFs::start(scratch_, why);
    if (fs == nullptr) {
      skip_case(why);
      return;
    }
    fd = ::open((*fs / "log").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(::ftruncate(fd, 65536) == 0);
  }
  ~Disk() { (void)::close(fd); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  // Bytes written, or a negative errno.
  ssize_t write(off_t offset, std::size_t bytes, char mark, int flags = 0) {
    std::string data(bytes, mark);
    struct iovec part {
      data.data(), data.size()
    };
    const ssize_t wrote = ::pwritev2(fd, &part, 1, offset, flags);
    return wrote < 0 ? -errno : wrote;
  }
  std::string read(off_t offset, std::size_t bytes) {
    std::string data(bytes, '?');
    const ssize_t got = ::pread(fd, data.data(), bytes, offset);
    return got < 0 ? "error" : data.substr(0, static_cast<std::size_t>(got));
  }
  // What is there once the power has gone and come back.
  std::string after_cut(Cut cut, off_t offset, std::size_t bytes, std::uint64_t seed = 1) {
    fs->cut(cut, seed);
    (void)::close(fd);  // what this descriptor has cached went with the power
    fd = ::open((*fs / "log").c_str(), O_RDWR | O_CLOEXEC);
    return read(offset, bytes);
  }
  int sync() { return ::fdatasync(fd) == 0 ? 0 : -errno; }

 private:
  Scratch scratch_;

 public:
  std::unique_ptr<FaultFs> fs;
  int fd = -1;
};

std::string of(std::size_t bytes, char mark) { return std::string(bytes, mark); }

}  // namespace

TEST_CASE("faultfs keeps what was flushed or written through and loses the rest at a power cut") {
  Disk disk;
  if (disk.fs == nullptr) {
    return;
  }
  CHECK(disk.write(0, 4096, 'a') == 4096);
  CHECK(disk.sync() == 0);
  CHECK(disk.write(4096, 4096, 'b', RWF_DSYNC) == 4096);
  CHECK(disk.write(8192, 4096, 'c') == 4096);
  CHECK(disk.read(8192, 4096) == of(4096, 'c'));
  CHECK(disk.after_cut(Cut::kNone, 0, 12288) == of(4096, 'a') + of(4096, 'b') + of(4096, '\0'));
  CHECK(disk.write(8192, 4096, 'd') == 4096);
  CHECK(disk.after_cut(Cut::kAll, 8192, 4096) == of(4096, 'd'));
}

TEST_CASE("faultfs tears at sectors and says by the seed which") {
  Disk disk;
  if (disk.fs == nullptr) {
    return;
  }
  CHECK(disk.write(0, 32768, 'a') == 32768);
  const std::string torn = disk.after_cut(Cut::kTorn512, 0, 32768, 7);
  std::size_t kept = 0;
  for (std::size_t at = 0; at < torn.size(); at += 512) {
    const std::string sector = torn.substr(at, 512);
    CHECK((sector == of(512, 'a') || sector == of(512, '\0')));
    kept += sector[0] == 'a' ? 1U : 0U;
  }
  CHECK(kept > 0);
  CHECK(kept < 64);
}

TEST_CASE("faultfs fails the write or flush that a rule names and no other") {
  Disk disk;
  if (disk.fs == nullptr) {
    return;
  }
  disk.fs->rule("write 2 2 eio 0");
  CHECK(disk.write(0, 4096, 'a', RWF_DSYNC) == 4096);
  CHECK(disk.write(0, 4096, 'b', RWF_DSYNC) == -EIO);
  CHECK(disk.write(4096, 4096, 'c', RWF_DSYNC) == 4096);
  disk.fs->clear();
  disk.fs->rule("fsync 2 2 enospc 0");
  CHECK(disk.sync() == 0);
  CHECK(disk.sync() == -ENOSPC);
  CHECK(disk.sync() == 0);
  disk.fs->clear();
  disk.fs->rule("write 1 1 short 1024");
  CHECK(disk.write(8192, 4096, 'd', RWF_DSYNC) == 1024);
  disk.fs->clear();
  disk.fs->rule("write 1 1 misplace 4096");
  CHECK(disk.write(12288, 4096, 'e', RWF_DSYNC) == 4096);
  CHECK(disk.after_cut(Cut::kNone, 12288, 8192) == of(4096, '\0') + of(4096, 'e'));
}

TEST_CASE("faultfs can fail a flush once and lose what it was for") {
  Disk disk;
  if (disk.fs == nullptr) {
    return;
  }
  CHECK(disk.write(0, 4096, 'a') == 4096);
  disk.fs->rule("fsync 1 1 eiodrop 0");
  CHECK(disk.sync() == -EIO);
  CHECK(disk.sync() == 0);
  CHECK(disk.read(0, 4096) == of(4096, 'a'));  // readers still see it
  CHECK(disk.after_cut(Cut::kAll, 0, 4096) == of(4096, '\0'));
  CHECK(disk.write(0, 4096, 'b') == 4096);
  disk.fs->rule("fsync 1 1 lie 0");
  CHECK(disk.sync() == 0);
  CHECK(disk.after_cut(Cut::kNone, 0, 4096) == of(4096, '\0'));
}

TEST_CASE("faultfs holds an operation until it is released and fails all without power") {
  Disk disk;
  if (disk.fs == nullptr) {
    return;
  }
  disk.fs->rule("write 1 1 hang 0");
  ssize_t wrote = 0;
  std::thread writer([&] { wrote = disk.write(0, 4096, 'a', RWF_DSYNC); });
  disk.fs->wait_until_hung();
  CHECK(disk.fs->counts().writes == 1);
  disk.fs->release();
  writer.join();
  CHECK(wrote == 4096);
  disk.fs->power_off();
  CHECK(disk.write(0, 4096, 'b', RWF_DSYNC) == -EIO);
  CHECK(disk.sync() == -EIO);
  disk.fs->clear();
  CHECK(disk.after_cut(Cut::kAll, 0, 4096) == of(4096, 'a'));
}

// One request of a loop device is several of FUSE if it is large. Of the first that fails on, the
// count of those before is what the loop device gets, and takes for success, unless faultfs knows
// who asks.
TEST_CASE("a loop device on faultfs is told of every write that faultfs fails") {
  const Scratch scratch;
  std::string why = kWhyNoMount;
  const auto fs = is_root() ? FaultFs::start(scratch, why, FaultFs::Client::kLoopDevice) : nullptr;
  if (fs == nullptr) {
    skip_case(why);
    return;
  }
  // A loop device makes one request of it, the kernel two of that for FUSE.
  constexpr ssize_t kBytes = ssize_t{1280} << 10;
  (void)fs->tell("target disk");
  make_sparse(*fs / "disk", kBytes);
  const auto loop = LoopDevice::attach(*fs / "disk", why);
  if (loop == nullptr) {
    skip_case(why);
    return;
  }
  const int fd = ::open(loop->path().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  REQUIRE(fd >= 0);
  // From a huge page, if there is one: of single pages no request would be large enough.
  constexpr std::size_t kHugeBytes = std::size_t{2} << 20U;
  void* place = nullptr;
  REQUIRE(::posix_memalign(&place, kHugeBytes, kHugeBytes) == 0);
  (void)::madvise(place, kHugeBytes, MADV_HUGEPAGE);
  std::memset(place, 'a', kHugeBytes);
  CHECK(::pwrite(fd, place, kBytes, 0) == kBytes);
  const std::uint64_t writes = fs->counts().writes;
  CHECK(writes >= 2);
  for (std::uint64_t k = 1; k <= writes; ++k) {
    CAPTURE(k);
    fs->clear();
    fs->rule("write " + std::to_string(k) + " 999999999 eio 0");
    CHECK(::pwrite(fd, place, kBytes, 0) != kBytes);
    CHECK(fs->counts().faults > 0);
  }
  fs->clear();
  std::free(place);
  (void)::close(fd);
}

TEST_CASE("a moment of a file is the same after a way through a file") {
  const Scratch scratch;
  faultfs::FaultFile file;
  file.resize(65536);
  const std::string data(10000, 'x');
  file.write(512, data.data(), data.size(), false);
  file.write(20000, data.data(), 100, true);
  const faultfs::FileMoment moment = file.moment();
  REQUIRE(save(moment, (scratch / "moment").c_str()));
  faultfs::FileMoment again;
  REQUIRE(load(again, (scratch / "moment").c_str()));
  CHECK(again.durable == moment.durable);
  REQUIRE(again.pending.size() == 2);
  CHECK(again.pending[0].offset == 512);
  CHECK(*again.pending[0].bytes == *moment.pending[0].bytes);
  CHECK(again.pending[1].stable);
}
