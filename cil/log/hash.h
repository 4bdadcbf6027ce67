// XXH3, 64 bit, in one piece or streamed. xxHash itself is seen by hash_kernel.h alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace keel {

[[nodiscard]] std::uint64_t hash64(const void* data, std::size_t bytes);

// Same value as hash64 over the pieces put together. No allocation.
class Hasher {
 public:
  Hasher();
  void update(const void* data, std::size_t bytes);
  [[nodiscard]] std::uint64_t digest() const;

 private:
  static constexpr std::size_t kStateBytes = 576;  // checked against xxHash's own in hash.cc
  alignas(64) std::byte state_[kStateBytes];
};

}  // namespace keel
