// A file system in memory. It refuses at once a file that is larger than itself, where a disk would
// be filled first, also for everybody else.
#pragma once

#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "support/skip_case.h"

namespace keel_test {

inline constexpr const char* kMemoryDirectory = "/dev/shm";

// Then the case is skipped.
inline bool no_memory_directory() {
  struct statfs found {};
  if (::statfs(kMemoryDirectory, &found) == 0 && found.f_type == TMPFS_MAGIC &&
      found.f_blocks != 0 && ::access(kMemoryDirectory, W_OK) == 0) {
    return false;
  }
  skip_case("/dev/shm is no tmpfs that this user may write to");
  return true;
}

}  // namespace keel_test
