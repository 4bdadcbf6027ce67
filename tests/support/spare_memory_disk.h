// SpareMemoryDisk: a simulated disk for reading a log again and again: what a reader maps and gives
// back is kept and given to the next reader, by whatever disk.
//
// The kernel would clear all of it each time, which costs more than the reading.
// I1 A page is zeroed; larger memory holds what its last user left, and nobody may count on zeros.
// Threads: those of one SpareMemory take turns.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "support/sim_disk.h"

namespace keel {

class SpareMemory {
 public:
  SpareMemory() = default;
  SpareMemory(const SpareMemory&) = delete;
  SpareMemory& operator=(const SpareMemory&) = delete;
  ~SpareMemory() {
    for (const Part& part : parts_) {
      (void)::munmap(part.memory, part.bytes);
    }
  }

  // nullptr: there is none.
  void* take(std::size_t bytes) {
    for (Part& part : parts_) {
      if (!part.in_use && part.bytes == bytes) {
        part.in_use = true;
        if (bytes == kPage) {
          std::memset(part.memory, 0, bytes);
        }
        return part.memory;
      }
    }
    return nullptr;
  }
  void note(void* memory, std::size_t bytes) {
    if (parts_.size() < kMost) {
      parts_.push_back({memory, bytes, true});
    }
  }
  bool give_back(const void* memory) {
    for (Part& part : parts_) {
      if (part.memory == memory) {
        part.in_use = false;
        return true;
      }
    }
    return false;
  }
  [[nodiscard]] bool has(const void* memory) const {
    for (const Part& part : parts_) {
      if (part.memory == memory) {
        return true;
      }
    }
    return false;
  }

 private:
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kMost = 16;

  struct Part {
    void* memory;
    std::size_t bytes;
    bool in_use;
  };
  std::vector<Part> parts_;
};

class SpareMemoryDisk : public SimDisk {
 public:
  explicit SpareMemoryDisk(SpareMemory& spare, const SimDiskOptions& options = {})
      : SimDisk(options), spare_(spare) {}

  // What a reader is to read at a time for its buffer to be had from here.
  static constexpr std::size_t kReadBytes = std::size_t{13} * 4096;

  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    const bool plain = address == nullptr && fd == -1 && protection == (PROT_READ | PROT_WRITE) &&
                       (flags & MAP_SHARED) == 0 && (bytes == 4096 || bytes == kReadBytes);
    if (!plain) {
      return SimDisk::mmap(address, bytes, protection, flags, fd, offset, out);
    }
    *out = spare_.take(bytes);
    if (*out != nullptr) {
      return 0;
    }
    const int result = SimDisk::mmap(address, bytes, protection, flags, fd, offset, out);
    if (result == 0) {
      spare_.note(*out, bytes);
    }
    return result;
  }
  int munmap(void* address, std::size_t bytes) override {
    return spare_.give_back(address) ? 0 : SimDisk::munmap(address, bytes);
  }
  int madvise(void* address, std::size_t bytes, int advice) override {
    return spare_.has(address) ? 0 : SimDisk::madvise(address, bytes, advice);
  }

 private:
  SpareMemory& spare_;
};

}  // namespace keel
