#include "memory/backend.h"

#include <cstdlib>
#include <memory>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"

namespace keel::bench {
namespace {

Pool* the_pool = nullptr;

}  // namespace

const Backend& malloc_backend() {
  static constexpr Backend kBackend{"malloc", [](std::size_t bytes) { return std::malloc(bytes); },
                                    [](void* buffer) { std::free(buffer); }};
  return kBackend;
}

const Backend& keel_backend(std::size_t capacity_bytes) {
  static constexpr Backend kBackend{
      "keel", [](std::size_t bytes) { return the_pool->kvmalloc(bytes, AllocFlags::kNoWarn); },
      [](void* buffer) { the_pool->kvfree(buffer); }};
  KEEL_CHECK(the_pool == nullptr, "one keel backend a process");
  auto pool = Pool::create({.capacity_bytes = capacity_bytes});
  KEEL_CHECK(pool.ok(), "make the driver's pool");
  the_pool = pool->release();
  return kBackend;
}

Pool& keel_pool() { return *the_pool; }

}  // namespace keel::bench
