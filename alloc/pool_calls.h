// Calls that adapters need of a Pool, whether it has them itself or they are made of others here.
#pragma once

#include <algorithm>
#include <cstring>

#include "keel/alloc/flags.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel::pool_calls {

template <class AnyPool>
void kvfree_sized(AnyPool& pool, void* address, std::size_t size_bytes) {
  if constexpr (requires { pool.kvfree_sized(address, size_bytes); }) {
    pool.kvfree_sized(address, size_bytes);
  } else {
    pool.kvfree(address);
  }
}

template <class AnyPool>
void* kvrealloc(AnyPool& pool, void* address, std::size_t size_bytes, AllocFlags flags,
                const char* owner) {
  if constexpr (requires { pool.kvrealloc(address, size_bytes, flags, owner); }) {
    return pool.kvrealloc(address, size_bytes, flags, owner);
  } else {
    if (size_bytes == 0) {
      pool.kvfree(address);
      return nullptr;
    }
    const std::size_t before = pool.kvsize(address);
    if (address != nullptr && pages_for(before) == pages_for(size_bytes)) {
      return address;
    }
    void* moved = pool.kvmalloc(size_bytes, flags, owner);
    if (moved != nullptr && address != nullptr) {
      std::memcpy(moved, address, std::min(before, size_bytes));
      pool.kvfree(address);
    }
    return moved;
  }
}

template <class AnyPool>
Status reserve(AnyPool& pool, Bytes bytes) {
  if constexpr (requires { pool.reserve(bytes); }) {
    return pool.reserve(bytes);
  } else {
    return Error{Errc::kUnsupported, 0, "reserving bytes", bytes.value()};
  }
}

}  // namespace keel::pool_calls
