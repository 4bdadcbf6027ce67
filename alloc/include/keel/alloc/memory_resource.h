// PoolResource: a Pool as std::pmr::memory_resource.
#pragma once

#include <cstddef>
#include <memory_resource>

#include "keel/alloc/pool.h"

namespace keel {

// Buffers of `pool`, tagged `owner` (static storage). Two are equal if their pool is the same.
// Threads: any. Errors: std::bad_alloc when the pool has no memory, and for alignments above a
// page.
class PoolResource final : public std::pmr::memory_resource {
 public:
  explicit PoolResource(Pool& pool = default_pool(), const char* owner = "pmr")
      : pool_(&pool), owner_(owner) {}

  [[nodiscard]] Pool& pool() const { return *pool_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void* address, std::size_t bytes, std::size_t alignment) override;
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override;

  Pool* pool_;
  const char* owner_;
};

}  // namespace keel
