// malloc and its kin for a whole process: below 32 KiB jemalloc's, from there on the pool's.
//
// C++'s operator new and delete come here through the C++ library, which calls malloc and free.
#include <malloc.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "keel/base/units.h"
#include "keel_jemalloc.h"
#include "large_buffers.h"

// Threads spread over jemalloc's arenas: the objects here are in them.
const char keel_je_overruling[] = KEEL_JE_CONTRACT_OPTIONS;

namespace keel::preload {
namespace {

void* noted(void* address) {
  note_small(address);
  return address;
}

void* allocate(std::size_t size) {
  if (size >= kLargeBytes) {
    if (void* address = allocate_large(size, false)) {
      return address;
    }
  }
  return noted(keel_je_malloc(size));
}

void* allocate_aligned(std::size_t alignment, std::size_t size) {
  if (size >= kLargeBytes && alignment <= kPageBytes) {
    if (void* address = allocate_large(size, false)) {
      return address;
    }
  }
  return noted(keel_je_aligned_alloc(std::bit_ceil(std::max(alignment, sizeof(void*))), size));
}

std::size_t usable_size(void* address) {
  return is_large(address) ? size_of_large(address) : keel_je_malloc_usable_size(address);
}

// Across the border between the two, or when the pool has no room.
void* move(void* address, std::size_t size) {
  const std::size_t before = usable_size(address);
  void* moved = before != 0 ? allocate(size) : nullptr;  // 0: a parent's buffer
  if (moved == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  std::memcpy(moved, address, std::min(before, size));
  std::free(address);
  return moved;
}

void* reallocate(void* address, std::size_t size) {
  if (is_large(address) && size >= kLargeBytes) {
    if (void* same_or_moved = reallocate_large(address, size)) {
      return same_or_moved;
    }
  } else if (!is_large(address) && size < kLargeBytes) {
    return noted(keel_je_realloc(address, size));
  }
  return move(address, size);
}

bool overflows(std::size_t count, std::size_t size) {
  std::size_t product = 0;
  return __builtin_mul_overflow(count, size, &product);
}

}  // namespace
}  // namespace keel::preload

using namespace keel::preload;

extern "C" {

void* malloc(std::size_t size) noexcept { return allocate(size); }

void free(void* address) noexcept {
  if (is_large(address)) {
    free_large(address);
  } else {
    keel_je_free(address);
  }
}

void* calloc(std::size_t count, std::size_t size) noexcept {
  if (!overflows(count, size) && count * size >= kLargeBytes) {
    if (void* address = allocate_large(count * size, true)) {
      return address;
    }
  }
  return noted(keel_je_calloc(count, size));
}

void* realloc(void* address, std::size_t size) noexcept {
  if (address == nullptr) {
    return allocate(size);
  }
  if (size == 0) {
    free(address);
    return nullptr;
  }
  return reallocate(address, size);
}

void* reallocarray(void* address, std::size_t count, std::size_t size) noexcept {
  if (overflows(count, size)) {
    errno = ENOMEM;
    return nullptr;
  }
  return realloc(address, count * size);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  return allocate_aligned(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  if (!keel::is_power_of_two(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  return allocate_aligned(alignment, size);
}

int posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept {
  if (!keel::is_power_of_two(alignment) || alignment % sizeof(void*) != 0) {
    return EINVAL;
  }
  const int errno_before = errno;
  void* address = allocate_aligned(alignment, size);
  errno = errno_before;
  if (address == nullptr) {
    return ENOMEM;
  }
  *out = address;
  return 0;
}

void* valloc(std::size_t size) noexcept { return allocate_aligned(keel::kPageBytes, size); }

void* pvalloc(std::size_t size) noexcept {
  const std::size_t rounded = keel::bytes_of(keel::pages_for(size));
  if (rounded < size) {
    errno = ENOMEM;
    return nullptr;
  }
  return allocate_aligned(keel::kPageBytes, std::max(rounded, keel::kPageBytes));
}

std::size_t malloc_usable_size(void* address) noexcept { return usable_size(address); }

}  // extern "C"
