#include "support/fresh_mmap.h"

#include <sys/mman.h>

#include "keel/base/check.h"
#include "keel/base/units.h"

namespace keel::bench {

void touch_pages(void* start, std::size_t bytes) {
  constexpr std::size_t kLine = 64;
  for (std::size_t page = 0; page * kPageBytes < bytes; ++page) {
    const std::size_t line = page % (kPageBytes / kLine);
    static_cast<volatile std::byte*>(start)[page * kPageBytes + line * kLine] = std::byte{1};
  }
}

void use_fresh_memory(std::size_t bytes) {
  void* start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  KEEL_CHECK(start != MAP_FAILED, "map fresh memory");
  touch_pages(start, bytes);
  ::munmap(start, bytes);
}

}  // namespace keel::bench
