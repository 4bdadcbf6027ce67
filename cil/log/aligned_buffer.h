// AlignedBuffer: page-aligned memory from a pool for direct I/O, given back when it goes.
#pragma once

#include <cstddef>
#include <utility>

#include "keel/alloc/pool.h"
#include "keel/base/result.h"

namespace keel {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Errors: kNoMemory.
  [[nodiscard]] static Result<AlignedBuffer> allocate(Pool& pool, std::size_t bytes,
                                                      const char* owner) {
    void* memory = pool.kvmalloc(bytes, AllocFlags::kZero, owner);
    if (memory == nullptr) {
      return Error{Errc::kNoMemory, 0, owner, bytes};
    }
    return AlignedBuffer(pool, static_cast<std::byte*>(memory), bytes);
  }

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() {
    if (data_ != nullptr) {
      pool_->kvfree(data_);
    }
  }

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  AlignedBuffer(Pool& pool, std::byte* data, std::size_t bytes)
      : pool_(&pool), data_(data), bytes_(bytes) {}

  Pool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace keel
