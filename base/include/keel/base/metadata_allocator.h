// Standard containers for metadata: their memory comes through the seam, so that a test can fail
// it.
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <vector>

#include "keel/base/os.h"

namespace keel {

// Throws std::bad_alloc as containers want; keel's own code catches it where the container is used.
template <class T>
class MetadataAllocator {
 public:
  using value_type = T;
  MetadataAllocator() = default;
  template <class U>
  MetadataAllocator(const MetadataAllocator<U>&) {}  // NOLINT(*-explicit-*)

  T* allocate(std::size_t count) {
    static_assert(alignof(T) <= alignof(std::max_align_t));
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
      throw std::bad_alloc();
    }
    void* memory = os().metadata_allocate(count * sizeof(T));
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { os().metadata_free(memory); }

  template <class U>
  bool operator==(const MetadataAllocator<U>&) const {
    return true;
  }
};

template <class T>
using MetadataVector = std::vector<T, MetadataAllocator<T>>;

}  // namespace keel
