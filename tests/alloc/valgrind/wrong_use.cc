// Uses a kvmalloc buffer wrongly: wrong_use ok|after-free|overrun [mapped] (valgrind_test.cmake).
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "keel/alloc/pool.h"

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kBytes = 5000;  // not whole pages: what lies behind is nobody's

[[gnu::noinline]] char* make_the_buffer(keel::Pool& pool) {
  return static_cast<char*>(pool.kvmalloc(kBytes, keel::AllocFlags::kKernel, "wrong use"));
}
[[gnu::noinline]] void free_the_buffer(keel::Pool& pool, char* buffer) { pool.kvfree(buffer); }
[[gnu::noinline]] void touch(char* at) { *static_cast<volatile char*>(at) = 1; }

// From here on buffers of more than a page are mapped.
void scatter(keel::Pool& pool) {
  std::vector<void*> pages;
  while (void* page = pool.kvmalloc(keel::kPageBytes, keel::AllocFlags::kNoWarn, "filler")) {
    pages.push_back(page);
  }
  for (std::size_t i = 0; i < pages.size(); i += 2) {
    pool.kvfree(pages[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  auto pool = keel::Pool::create(
      {.capacity_bytes = 2 * kMiB, .window_bytes = 64 * kMiB, .background = false});
  if (argc < 2 || !pool.ok()) {
    return 2;
  }
  const bool mapped = argc > 2;
  if (mapped) {
    scatter(**pool);
    // The window may begin where the pool's last page ends: Valgrind would tell of the buffer
    // in that page.
    (void)(*pool)->kvmalloc(kBytes);
  }
  char* buffer = make_the_buffer(**pool);
  if (buffer == nullptr || (*pool)->is_contiguous(buffer) == mapped) {
    return 2;
  }
  std::memset(buffer, 1, kBytes);
  if (std::strcmp(argv[1], "overrun") == 0) {
    touch(buffer + kBytes);
  }
  auto* grown = static_cast<char*>((*pool)->kvrealloc(buffer, kBytes + 1000));
  if (grown != nullptr) {
    touch(grown + kBytes + 999);
    free_the_buffer(**pool, grown);
  }
  if (std::strcmp(argv[1], "after-free") == 0) {
    touch(buffer);
  }
}
