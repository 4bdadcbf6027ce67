// PoolAllocator: a Pool as the allocator of a standard container.
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <type_traits>

#include "keel/alloc/memory_resource.h"
#include "keel/alloc/pool.h"

namespace keel {

// For example std::vector<std::byte, keel::PoolAllocator<std::byte>>. Moves and swaps with its
// container, as memory of one pool cannot be given back to another.
// Threads: as the pool's. Errors: as PoolResource's, and std::bad_alloc for counts that overflow.
template <class T>
class PoolAllocator {
 public:
  using value_type = T;
  using propagate_on_container_copy_assignment = std::true_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  PoolAllocator() : PoolAllocator(default_pool()) {}
  explicit PoolAllocator(Pool& pool, const char* owner = "container") : resource_(pool, owner) {}
  template <class U>
  PoolAllocator(const PoolAllocator<U>& other) : resource_(other.resource()) {}  // NOLINT

  [[nodiscard]] T* allocate(std::size_t count) {
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
      throw std::bad_alloc();
    }
    return static_cast<T*>(resource_.allocate(count * sizeof(T), alignof(T)));
  }
  void deallocate(T* address, std::size_t count) {
    resource_.deallocate(address, count * sizeof(T), alignof(T));
  }

  [[nodiscard]] const PoolResource& resource() const { return resource_; }

  template <class U>
  bool operator==(const PoolAllocator<U>& other) const {
    return &resource_.pool() == &other.resource().pool();
  }

 private:
  PoolResource resource_;
};

}  // namespace keel
