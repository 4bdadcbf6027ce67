#include "keel/base/fork_guard.h"

#include <sys/mman.h>

#include <cstddef>

#include "keel/base/os.h"
#include "keel/base/units.h"

namespace keel {

ForkGuard::~ForkGuard() {
  if (page_ != nullptr) {
    // Failure leaks one page; there is nobody to tell.
    (void)os().munmap(const_cast<unsigned char*>(page_), kPageBytes);
  }
}

Status ForkGuard::arm() {
  void* page = nullptr;
  int error = os().mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0, &page);
  if (error < 0) {
    return system_error(-error, "map the fork guard");
  }
  error = os().madvise(page, kPageBytes, MADV_WIPEONFORK);
  if (error < 0) {
    (void)os().munmap(page, kPageBytes);
    return system_error(-error, "guard against use in a forked child");
  }
  page_ = static_cast<volatile unsigned char*>(page);
  *page_ = 1;
  static_assert(sizeof(*word_) == 4);
  word_ = reinterpret_cast<std::atomic<std::uint32_t>*>(static_cast<std::byte*>(page) + 64);
  return {};
}

}  // namespace keel
