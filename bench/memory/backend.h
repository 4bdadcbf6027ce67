// Where a workload's buffers come from: the process's malloc (whatever LD_PRELOAD made of it), a
// keel::Pool, or the static pool.
//
// Plain function pointers, so that every backend pays the same indirect call and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

namespace keel {
class Pool;
}

namespace keel::bench {

struct Backend {
  const char* name;
  void* (*allocate)(std::size_t bytes);  // nullptr when there is none
  void (*free)(void* buffer);
};

[[nodiscard]] const Backend& malloc_backend();

// A pool of `capacity_bytes`, otherwise with the default settings: the same for every workload.
// Lives to the end of the process. Aborts if it cannot be made.
[[nodiscard]] const Backend& keel_backend(std::size_t capacity_bytes);
// The pool behind it.
[[nodiscard]] Pool& keel_pool();

// See static_pool.cc.
[[nodiscard]] const Backend& static_backend();

}  // namespace keel::bench
