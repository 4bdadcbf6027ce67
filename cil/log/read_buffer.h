// ReadBuffer: what recovery and followers read into and copy to, in huge pages where the kernel has
// them.
//
// A pool maps single pages. A read into them takes one segment a page, and devices and hypervisors
// pay for segments: read in huge pages, the same bytes came three times as fast. And a pool has a
// largest allocation, which the writer of a checkpoint does not know: what a log holds must be read
// with any pool. So this is anonymous memory of the process, given back when the reading ends.
//
// I1 A child of fork() does not have it: else a read under way during fork() could land in a copy.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "keel/base/os.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class ReadBuffer {
 public:
  ReadBuffer() = default;
  // Errors: kNoMemory.
  [[nodiscard]] static Result<ReadBuffer> allocate(std::size_t bytes) {
    // Room to begin with a huge page; what is never touched costs nothing.
    const std::size_t mapped = bytes < kHugeBytes ? bytes : bytes + kHugeBytes;
    void* memory = nullptr;
    const int error = os().mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &memory);
    if (error < 0) {
      return Error{Errc::kNoMemory, -error, "log reading", bytes};
    }
    // Both only help, or guard against a fork that mostly does not come.
    (void)os().madvise(memory, mapped, MADV_HUGEPAGE);
    (void)os().madvise(memory, mapped, MADV_DONTFORK);
    return ReadBuffer(static_cast<std::byte*>(memory), mapped, bytes);
  }

  ReadBuffer(ReadBuffer&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        mapped_(std::exchange(other.mapped_, 0)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  ReadBuffer& operator=(ReadBuffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(mapped_, other.mapped_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ReadBuffer(const ReadBuffer&) = delete;
  ReadBuffer& operator=(const ReadBuffer&) = delete;
  ~ReadBuffer() {
    if (memory_ != nullptr) {
      (void)os().munmap(memory_, mapped_);
    }
  }

  // A multiple of a huge page if it is as long as one, else of a page.
  [[nodiscard]] std::byte* data() const {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_);
    const std::size_t unit = mapped_ > kHugeBytes ? kHugeBytes : kPageBytes;
    return memory_ + (round_up(address, unit) - address);
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kHugeBytes = std::size_t{2} << 20;

  ReadBuffer(std::byte* memory, std::size_t mapped, std::size_t bytes)
      : memory_(memory), mapped_(mapped), bytes_(bytes) {}

  std::byte* memory_ = nullptr;
  std::size_t mapped_ = 0;
  std::size_t bytes_ = 0;  // that were asked for
};

}  // namespace keel
