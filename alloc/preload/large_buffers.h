// Large buffers of the process's malloc: a Pool, and how to know its addresses.
//
// I1 Nothing here waits for the pool to be made, and nothing calls itself: a request that comes
//    before, while another thread makes the pool, or from inside the pool gets nullptr, and
//    jemalloc serves it.
// I2 The pool's metadata is jemalloc's, whatever its size and thread.
// I3 In a forked child there is no pool: requests get nullptr, and what the parent had is ignored.
#pragma once

#include <cstddef>

#include "page_marks.h"

namespace keel::preload {

// From this size on a buffer is the pool's.
inline constexpr std::size_t kLargeBytes = 32U << 10;

extern PageMarks pool_pages;

// Whether the pool gave `address` out.
inline bool is_large(const void* address) { return pool_pages.test(address); }

// Page-aligned; nullptr if the pool cannot serve it now.
[[nodiscard]] void* allocate_large(std::size_t size, bool zero);
void free_large(void* address);
// At least `size` bytes with what the buffer holds; nullptr, and the buffer is as it was.
[[nodiscard]] void* reallocate_large(void* address, std::size_t size);
// 0 if the buffer is a parent's.
[[nodiscard]] std::size_t size_of_large(const void* address);

// To be told of addresses that jemalloc gives out: in a forked child they may be where the parent's
// pool was.
void note_small(const void* address);

}  // namespace keel::preload
