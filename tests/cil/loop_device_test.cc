// A log on a real block device: a loop device, where the process may make one.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "block_device_world.h"
#include "log/write_queue.h"
#include "support/loop_device.h"
#include "support/scratch_directory.h"
#include "support/skip_case.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a loop device: made a log, used in both modes, refused when in use") {
  const ScratchDirectory directory;
  const std::string file = directory / "disk";
  const int backing = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(backing >= 0);
  REQUIRE(::ftruncate(backing, kDeviceBytes) == 0);
  (void)::close(backing);
  std::string why;
  const auto loop = LoopDevice::attach(file, why);
  if (loop == nullptr) {
    skip_case(why);
    return;
  }
  const auto made = create_log(loop->path(), whole_device());
  if (!made.ok() && made.error().code == Errc::kUnsupported) {
    skip_case(made.error().message());
    return;
  }
  REQUIRE(made.ok());
  CHECK(made->file == Bytes(kDeviceBytes));
  check_usable(loop->path());
  CHECK(create_code(loop->path(), whole_device()) == Errc::kExists);
  for (const IoMode mode : {IoMode::kSync, IoMode::kUring}) {
    auto device = LogDevice::open(loop->path(), DeviceMode::kReadWrite, false);
    REQUIRE(device.ok());
    CHECK((*device)->is_block_device());
    const auto queue = WriteQueue::make(**device, mode, {}, 2);
    if (!queue.ok()) {
      MESSAGE("skipped: " << queue.error().message());
      continue;
    }
    void* block = kvmalloc(4096);
    std::memset(block, 'q', 4096);
    struct iovec part {
      block, 4096
    };
    REQUIRE((*queue)->start(0, 1 << 20, &part, 1).ok());
    REQUIRE((*queue)->wait(0).ok());
    part = {block, 4096};
    REQUIRE((*device)->write_durable(2 << 20, &part, 1).ok());
    std::memset(block, 0, 4096);
    REQUIRE((*device)->read(1 << 20, block, 4096).ok());
    CHECK(*static_cast<char*>(block) == 'q');
    kvfree(block);
  }
  // Claimed by another node of the same device, where the lock does not reach.
  struct stat node {};
  REQUIRE(::fstat(loop->fd(), &node) == 0);
  const std::string other = directory / "node";
  if (::mknod(other.c_str(), S_IFBLK | 0600, node.st_rdev) == 0) {
    const auto device = LogDevice::open(loop->path(), DeviceMode::kReadWrite, false);
    REQUIRE(device.ok());
    const auto second = LogDevice::open(other, DeviceMode::kReadWrite, false);
    // EACCES where the scratch directory's file system is mounted without devices.
    CHECK((second.error().code == Errc::kBusy || second.error().code == Errc::kPermission));
  }
  const int claim = ::open(loop->path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
  REQUIRE(claim >= 0);
  auto config = whole_device();
  config.overwrite = true;
  CHECK(create_code(loop->path(), config) == Errc::kBusy);
  CHECK(read_log_info(loop->path()).ok());
  (void)::close(claim);
  CHECK(create_log(loop->path(), config).ok());
}
