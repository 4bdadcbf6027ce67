// What a log device makes of the kernel's rarer answers: interrupted calls, a file that changes
// while it is opened, file systems that say odd things or nothing.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "log/log_device.h"
#include "log/log_file.h"
#include "log/write_progress.h"
#include "probe.h"
#include "write_queue_world.h"

using namespace keel;
using namespace keel_test;

namespace {

// A simulated disk of which single answers are replaced.
class OddDisk : public SimDisk {
 public:
  using SimDisk::SimDisk;
  std::function<void(struct stat&)> stat_says;    // what fstat() gives, from the second call on
  std::function<void(struct statx&)> statx_says;  // what statx() gives
  std::function<std::int64_t(std::uint64_t, int)> lseek_says;
  std::function<int()> chmod_says;
  int in_place_error = 0;
  bool refuses = false;      // every open()
  std::string first_opened;  // the path
  int stats = 0;

  int fstat(int fd, struct stat* out) override {
    const int result = SimDisk::fstat(fd, out);
    if (stat_says && ++stats > 1) {
      stat_says(*out);
    }
    return result;
  }
  int fchmod(int fd, mode_t mode) override {
    return chmod_says ? chmod_says() : SimDisk::fchmod(fd, mode);
  }
  int statx(int fd, unsigned mask, struct statx* out) override {
    const int result = SimDisk::statx(fd, mask, out);
    if (statx_says) {
      statx_says(*out);
    }
    return result;
  }
  std::int64_t lseek(int fd, std::uint64_t offset, int whence) override {
    return lseek_says ? lseek_says(offset, whence) : SimDisk::lseek(fd, offset, whence);
  }
  int set_no_copy_on_write(int fd) override {
    return in_place_error != 0 ? -in_place_error : SimDisk::set_no_copy_on_write(fd);
  }
  int open(const char* path, int flags, mode_t mode) override {
    first_opened = first_opened.empty() ? path : first_opened;
    return refuses ? -EACCES : SimDisk::open(path, flags, mode);
  }
};

constexpr std::size_t kBlocks = 64;

// A disk with a file on it, and its device.
struct World {
  explicit World(bool buffered = false, const SimDiskOptions& options = {})
      : disk(options), scope(disk) {
    disk.set_image(kLogPath, SimContent(kBlocks * kBlock, std::byte{'f'}));
    auto opened = LogDevice::open(kLogPath, DeviceMode::kReadWrite, buffered);
    REQUIRE(opened.ok());
    device = std::move(*opened);
    disk.clear_io_log();
  }
  Status write(bool durable, std::uint64_t place, std::size_t blocks = 1) {
    struct iovec part {
      data.data(), blocks* kBlock
    };
    return durable ? device->write_durable(place * kBlock, &part, 1)
                   : device->write(place * kBlock, &part, 1);
  }
  [[nodiscard]] std::vector<SimOp> operations() const {
    std::vector<SimOp> found;
    for (const SimIo& io : disk.io_log()) {
      found.push_back(io.op);
    }
    return found;
  }

  OddDisk disk;
  ScopedOs scope;
  AlignedBuffer data = buffer_of(4 * kBlock, 'd');
  std::unique_ptr<LogDevice> device;
};

Error open_error_of(OddDisk& disk, bool buffered = false) {
  const ScopedOs scope(disk);
  const auto opened = LogDevice::open(kLogPath, DeviceMode::kReadWrite, buffered);
  REQUIRE_FALSE(opened.ok());
  return opened.error();
}

// A disk with a file that could be a log.
void add_file(SimDisk& disk) { disk.set_image(kLogPath, SimContent(kBlocks * kBlock)); }

}  // namespace

TEST_CASE("an interrupted read or write is made again, and is no error") {
  World world;
  const AlignedBuffer back = buffer_of(kBlock);
  world.disk.inject({.op = SimOp::kRead, .error = EINTR});
  REQUIRE(world.device->read(0, back.data(), kBlock).ok());
  CHECK(back.data()[0] == std::byte{'f'});
  CHECK(world.operations() == std::vector{SimOp::kRead, SimOp::kRead});
  for (const bool durable : {false, true}) {
    world.disk.clear_faults();
    world.disk.clear_io_log();
    world.disk.inject({.op = SimOp::kWrite, .error = EINTR});
    REQUIRE(world.write(durable, 5).ok());
    // One call did all of it, so there is nothing to flush.
    CHECK(world.operations() == std::vector{SimOp::kWrite, SimOp::kWrite});
    REQUIRE(world.device->read(5 * kBlock, back.data(), kBlock).ok());
    CHECK(back.data()[0] == std::byte{'d'});
  }
}

TEST_CASE("a file that ends before what is read of it is damaged, with the place") {
  World world;
  const AlignedBuffer back = buffer_of(2 * kBlock);
  world.disk.inject({.op = SimOp::kRead, .effect = SimFault::Effect::kShort, .bytes = kBlock});
  world.disk.inject({.op = SimOp::kRead, .nth = 2, .effect = SimFault::Effect::kShort, .bytes = 0});
  const Status read = world.device->read(3 * kBlock, back.data(), 2 * kBlock);
  REQUIRE_FALSE(read.ok());
  CHECK(read.error().code == Errc::kDamaged);
  CHECK(read.error().value == 4 * kBlock);
}

TEST_CASE("a write that is not supported has failed, whatever a durable one may do about it") {
  World world;
  world.disk.inject({.op = SimOp::kWrite, .error = EOPNOTSUPP});
  const Status wrote = world.write(false, 5);
  REQUIRE_FALSE(wrote.ok());
  CHECK(wrote.error().sys_errno == EOPNOTSUPP);
  CHECK(world.operations() == std::vector{SimOp::kWrite});
}

TEST_CASE("where durable writes are not known, one that fails is not flushed") {
  for (const bool buffered : {false, true}) {
    World world(buffered);
    world.disk.inject({.op = SimOp::kWrite, .error = EOPNOTSUPP});
    REQUIRE(world.write(true, 5).ok());
    world.disk.clear_io_log();
    world.disk.inject({.op = SimOp::kWrite, .error = EREMOTEIO});
    const Status wrote = world.write(true, 6);
    REQUIRE_FALSE(wrote.ok());
    CHECK(wrote.error().sys_errno == EREMOTEIO);
    CHECK(world.operations() == std::vector{SimOp::kWrite});
  }
}

TEST_CASE("how far a write has come: an interruption is nothing, more than was asked an error") {
  struct iovec parts[2] = {{nullptr, kBlock}, {nullptr, kBlock}};
  WriteProgress progress(7 * kBlock, parts, 2);
  CHECK(progress.advance(-EINTR, kBlock).ok());
  CHECK(progress.count() == 2);
  const Status more = progress.advance(3 * kBlock, kBlock);
  REQUIRE_FALSE(more.ok());
  CHECK(more.error().code == Errc::kIo);
  CHECK(progress.advance(kBlock, kBlock).ok());
  CHECK(progress.count() == 1);
  CHECK(progress.offset() == 8 * kBlock);
  CHECK_FALSE(progress.advance(0, kBlock).ok());  // short for the second time
}

TEST_CASE("where a file system does not say where data is, all of the rest may be data") {
  World world;
  const std::uint64_t end = kBlocks * kBlock;
  const auto found = [&](std::uint64_t offset) {
    const LogDevice::Extent extent = world.device->next_data(offset);
    return std::vector{extent.from, extent.to};
  };
  CHECK(found(end) == std::vector{end, end});
  CHECK(found(end + kBlock) == std::vector{end + kBlock, end + kBlock});
  world.disk.lseek_says = [](std::uint64_t, int) { return std::int64_t{-EINVAL}; };
  CHECK(found(kBlock) == std::vector{std::uint64_t{kBlock}, end});
  // Data before the place that was asked about.
  world.disk.lseek_says = [](std::uint64_t, int) { return std::int64_t{0}; };
  CHECK(found(kBlock) == std::vector{std::uint64_t{kBlock}, end});
  // Data that ends where it begins, or of which the end is not known.
  for (const std::int64_t hole : {std::int64_t{2 * kBlock}, std::int64_t{-EINVAL}}) {
    world.disk.lseek_says = [hole](std::uint64_t, int whence) {
      return whence == SEEK_DATA ? std::int64_t{2 * kBlock} : hole;
    };
    CHECK(found(kBlock) == std::vector{std::uint64_t{2 * kBlock}, end});
  }
  world.disk.lseek_says = [](std::uint64_t, int) { return std::int64_t{-ENXIO}; };
  CHECK(found(kBlock) == std::vector{end, end});
}

TEST_CASE("a block device has no holes: all of it may be data") {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.add_block_device("/sim/disk", 1U << 20);
  const auto device = LogDevice::open("/sim/disk", DeviceMode::kReadOnly, false);
  REQUIRE(device.ok());
  const LogDevice::Extent extent = (*device)->next_data(kBlock);
  CHECK(extent.from == kBlock);
  CHECK(extent.to == 1U << 20);
}

TEST_CASE(
    "what takes the file's place between the look and the opening is refused for what it is") {
  struct Case {
    int error;
    Errc code;
    const char* text;
  };
  for (const Case& one :
       {Case{ELOOP, Errc::kNotALog, "symbolic link"}, Case{EISDIR, Errc::kNotALog, "directory"},
        Case{EBUSY, Errc::kBusy, "in use"}, Case{EINVAL, Errc::kUnsupported, "no direct I/O"},
        Case{ENOENT, Errc::kNotFound, "open the log"}}) {
    CAPTURE(one.text);
    OddDisk disk;
    add_file(disk);
    disk.inject({.op = SimOp::kOpen, .nth = 2, .error = one.error});
    const Error error = open_error_of(disk);
    CHECK(error.code == one.code);
    CHECK(error.message().find(one.text) != std::string::npos);
  }
  // Through the page cache a file system's EINVAL is about something else.
  OddDisk disk;
  add_file(disk);
  disk.inject({.op = SimOp::kOpen, .nth = 2, .error = EINVAL});
  const Error error = open_error_of(disk, true);
  CHECK(error.sys_errno == EINVAL);
  CHECK(error.code != Errc::kUnsupported);
}

TEST_CASE("a file that loses its name, or gets a second one, while it is opened is no log") {
  for (const nlink_t names : {nlink_t{0}, nlink_t{2}}) {
    for (const int from : {2, 3}) {  // found at the opening, or once the lock is had
      OddDisk disk;
      add_file(disk);
      disk.stat_says = [&](struct stat& found) { found.st_nlink = disk.stats >= from ? names : 1; };
      const Error error = open_error_of(disk);
      CHECK(error.code == Errc::kNotALog);
      CHECK(error.message().find(names == 0 ? "lost its name" : "more than one name") !=
            std::string::npos);
    }
  }
}

TEST_CASE("a lock that stays denied is another's, one that is refused otherwise is an error") {
  struct Case {
    int error;
    Errc code;
  };
  for (const Case& one :
       {Case{EACCES, Errc::kBusy}, Case{EAGAIN, Errc::kBusy}, Case{ENOLCK, Errc::kSystem}}) {
    CAPTURE(one.error);
    OddDisk disk({.virtual_clock = true});
    add_file(disk);
    disk.inject({.op = SimOp::kLock, .error = one.error, .for_good = true});
    CHECK(open_error_of(disk).code == one.code);
  }
  // Denied for a while: waited for.
  OddDisk disk({.virtual_clock = true});
  const ScopedOs scope(disk);
  add_file(disk);
  for (std::uint64_t nth = 1; nth <= 5; ++nth) {
    disk.inject({.op = SimOp::kLock, .nth = nth, .error = nth % 2 != 0 ? EACCES : EAGAIN});
  }
  CHECK(LogDevice::open(kLogPath, DeviceMode::kReadWrite, false).ok());
}

TEST_CASE("a device node that names another device once it is claimed is busy") {
  for (const bool becomes_file : {false, true}) {
    OddDisk disk;
    disk.add_block_device(kLogPath, 1U << 20);
    // The look, the first opening, and then the claim.
    disk.stat_says = [&](struct stat& found) {
      if (disk.stats > 2 && becomes_file) {
        found.st_mode = S_IFREG | 0600;
        found.st_nlink = 1;
        found.st_uid = ::geteuid();
      } else if (disk.stats > 2) {
        found.st_rdev += 1;
      }
    };
    const Error error = open_error_of(disk);
    CHECK(error.code == Errc::kBusy);
    CHECK(error.message().find("another device") != std::string::npos);
  }
}

TEST_CASE("what direct I/O wants is kept to, or said not to be possible") {
  const auto with = [](std::uint32_t offset_align, std::uint32_t memory_align, bool buffered) {
    OddDisk disk;
    const ScopedOs scope(disk);
    add_file(disk);
    disk.statx_says = [=](struct statx& found) {
      found.stx_mask |= STATX_DIOALIGN;
      found.stx_dio_offset_align = offset_align;
      found.stx_dio_mem_align = memory_align;
    };
    const auto opened = LogDevice::open(kLogPath, DeviceMode::kReadWrite, buffered);
    return opened.ok() ? std::to_string((*opened)->alignment()) : opened.error().message();
  };
  CHECK(with(512, 512, false) == "4096");
  CHECK(with(16384, 512, false) == "16384");
  CHECK(with(0, 0, false).find("no direct I/O") != std::string::npos);
  CHECK(with(0, 0, true) == "4096");
  CHECK(with(512, 8192, false).find("beyond a page") != std::string::npos);
  CHECK(with(12288, 512, false).find("units that no log block has") != std::string::npos);
  CHECK(with(131072, 512, false).find("units that no log block has") != std::string::npos);
  OddDisk disk;
  add_file(disk);
  disk.statx_says = [](struct statx& found) {
    found.stx_mask |= STATX_DIOALIGN;
    found.stx_dio_offset_align = 0;
  };
  CHECK(open_error_of(disk).code == Errc::kUnsupported);
}

TEST_CASE("a log is made beside its name, also in the root and in the current directory") {
  struct Case {
    const char* path;
    const char* directory;
  };
  for (const Case& one :
       {Case{"/sim/log", "/sim"}, Case{"/keel-nowhere", "/"}, Case{"keel-nowhere", "."}}) {
    // Where it is looked for is enough: nothing is made.
    OddDisk disk;
    disk.refuses = true;
    const ScopedOs scope(disk);
    const auto made = LogDevice::create(one.path, false);
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kPermission);
    CHECK(disk.first_opened == one.directory);
  }
}

TEST_CASE("a new log's mode is made right, and where that cannot be it is not made") {
  struct Case {
    mode_t first, later;
    int chmod_error;
    const char* text;  // nullptr: it is made
  };
  for (const Case& one :
       {Case{0600, 0600, 0, nullptr}, Case{0200, 0600, 0, nullptr}, Case{0400, 0600, 0, nullptr},
        Case{0700, 0700, EPERM, nullptr}, Case{0200, 0200, EPERM, "make the log readable"},
        Case{0200, 0200, 0, "make the log readable"}, Case{0666, 0666, 0, "anybody may write"}}) {
    CAPTURE(one.first);
    OddDisk disk;
    const ScopedOs scope(disk);
    bool changed = false;
    disk.stats = 1;
    disk.stat_says = [&](struct stat& found) {
      found.st_mode = S_IFREG | (changed ? one.later : one.first);
    };
    disk.chmod_says = [&] {
      changed = true;
      return -one.chmod_error;
    };
    const auto made = LogDevice::create(kLogPath, false);
    CHECK(changed == (one.first != 0600));
    REQUIRE(made.ok() == (one.text == nullptr));
    if (one.text != nullptr) {
      CHECK(made.error().message().find(one.text) != std::string::npos);
    }
  }
  for (const std::uint64_t nth :
       {std::uint64_t{1}, std::uint64_t{2}}) {  // the look before, and the look after
    OddDisk disk;
    const ScopedOs scope(disk);
    disk.stats = 1;
    disk.stat_says = [](struct stat& found) { found.st_mode = S_IFREG | 0200; };
    disk.chmod_says = [] { return 0; };
    disk.inject({.op = SimOp::kStat, .nth = nth, .error = EREMOTEIO});
    const auto made = LogDevice::create(kLogPath, false);
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().sys_errno == EREMOTEIO);
  }
}

TEST_CASE("where a file cannot be kept from being copied on write, the log says so") {
  for (const int error : {0, EOPNOTSUPP}) {
    OddDisk disk({.copy_on_write = true});
    const ScopedOs scope(disk);
    disk.in_place_error = error;
    const auto made = create_log(kLogPath, {.size = kMinLogBytes});
    REQUIRE(made.ok());
    CHECK(made->copy_on_write == (error != 0));
  }
}

TEST_CASE("a log whose blocks are smaller than what direct I/O wants is read through the cache") {
  SimContent image;
  {
    LogWorld small;
    image = small.disk.image(kLogPath);
  }
  SimDisk disk({.physical_sector = 8192});
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, image);
  const auto direct = read_log_info(kLogPath);
  REQUIRE_FALSE(direct.ok());
  CHECK(direct.error().code == Errc::kUnsupported);
  CHECK(direct.error().value == 8192);
  const auto buffered = read_log_info(kLogPath, true);
  REQUIRE(buffered.ok());
  CHECK(buffered->block_bytes == kBlock);
}

TEST_CASE("a log is not opened without memory for its superblock") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world;
  auto pool = Pool::create({.capacity_bytes = 8U << 20, .background = false});
  REQUIRE(pool.ok());
  std::vector<void*> taken;
  for (std::size_t bytes = 1U << 20; bytes >= 4096; bytes /= 2) {
    while (void* memory = (*pool)->kvmalloc(bytes, AllocFlags::kNoWarn)) {
      taken.push_back(memory);
    }
  }
  const auto dry = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, **pool);
  REQUIRE_FALSE(dry.ok());
  CHECK(dry.error().code == Errc::kNoMemory);
  for (void* memory : taken) {
    (*pool)->kvfree(memory);
  }
  CHECK(LogFile::open(kLogPath, DeviceMode::kReadOnly, false, **pool).ok());
  set_message_hook(before);
}
