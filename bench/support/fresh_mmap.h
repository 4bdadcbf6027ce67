// What keel's mapped buffers are held against: memory fresh from the kernel.
#pragma once

#include <cstddef>

namespace keel::bench {

// Stores into each page, at another place in each, so that the stores do not all meet in one set of
// the cache.
void touch_pages(void* start, std::size_t bytes);

// mmap of private anonymous memory, touch_pages(), munmap. Aborts if the kernel refuses.
void use_fresh_memory(std::size_t bytes);

}  // namespace keel::bench
