// Whether this process may lock memory.
#pragma once

#include <sys/mman.h>

#include <cstddef>

#include "support/skip_case.h"

namespace keel_test {

// True, and the case is skipped, where so much cannot be locked: RLIMIT_MEMLOCK is below it, and
// the user has no privilege.
[[nodiscard]] inline bool cannot_lock(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool can = memory != MAP_FAILED && ::mlock(memory, bytes) == 0;
  if (memory != MAP_FAILED) {
    (void)::munmap(memory, bytes);
  }
  if (!can) {
    skip_case("the limit of locked memory is too small");
  }
  return !can;
}

}  // namespace keel_test
