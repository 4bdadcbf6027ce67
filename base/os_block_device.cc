// What Os asks of block devices, and of the disk under a file.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "keel/base/os.h"

namespace keel {
namespace {

// A decimal number in a file of sysfs; 0 if there is none.
int read_number(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return 0;
  }
  char text[32] = {};
  // If it cannot be read the text stays empty.
  [[maybe_unused]] const ssize_t got = ::read(fd, text, sizeof text - 1);
  (void)::close(fd);
  return static_cast<int>(std::strtol(text, nullptr, 10));
}

// A partition has no queue of its own; its disk stands one directory above it.
int sector_of_disk(dev_t device) {
  for (const char* place : {"", "/.."}) {
    char path[96];
    std::snprintf(path, sizeof path, "/sys/dev/block/%u:%u%s/queue/physical_block_size",
                  major(device), minor(device), place);
    if (const int bytes = read_number(path); bytes > 0) {
      return bytes;
    }
  }
  return -ENOENT;
}

}  // namespace

int Os::block_device_bytes(int fd, std::uint64_t* out) {
  return ::ioctl(fd, BLKGETSIZE64, out) < 0 ? -errno : 0;
}

int Os::physical_sector_bytes(int fd) {
  struct stat found {};
  if (::fstat(fd, &found) < 0) {
    return -errno;
  }
  if (!S_ISBLK(found.st_mode)) {
    return sector_of_disk(found.st_dev);
  }
  unsigned bytes = 0;
  return ::ioctl(fd, BLKPBSZGET, &bytes) < 0 ? -errno : static_cast<int>(bytes);
}

}  // namespace keel
