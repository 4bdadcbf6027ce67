// SpareMemory: what a reader of logs maps and gives back is kept, and given to the next reader.
//
// The kernel would clear all of it each time, which costs more than the reading.
// I1 A page is zeroed; larger memory holds what its last user left, and nobody may count on zeros.
// Threads: one at a time.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace keel {

class SpareMemory {
 public:
  // What a reader is to read at a time for its buffer to be had from here: no multiple of any block
  // size that an allocator would map.
  static constexpr std::size_t kReadBytes = std::size_t{13} * 4096;

  SpareMemory() = default;
  SpareMemory(const SpareMemory&) = delete;
  SpareMemory& operator=(const SpareMemory&) = delete;
  ~SpareMemory() {
    for (const Part& part : parts_) {
      (void)::munmap(part.memory, part.bytes);
    }
  }

  // As Os::mmap(), of which `from_system()` is the call: private memory of a page, or of
  // kReadBytes, is mapped once and used again.
  template <class FromSystem>
  int map(void* address, std::size_t bytes, int protection, int flags, int fd, void** out,
          FromSystem&& from_system) {
    const bool plain = address == nullptr && fd == -1 && protection == (PROT_READ | PROT_WRITE) &&
                       (flags & MAP_SHARED) == 0 && (bytes == kPage || bytes == kReadBytes);
    if (plain) {
      const auto spare = std::find_if(parts_.begin(), parts_.end(), [bytes](const Part& part) {
        return !part.in_use && part.bytes == bytes;
      });
      if (spare != parts_.end()) {
        spare->in_use = true;
        if (bytes == kPage) {
          std::memset(spare->memory, 0, bytes);
        }
        *out = spare->memory;
        return 0;
      }
    }
    const int result = from_system();
    if (plain && result == 0 && parts_.size() < kMost) {
      parts_.push_back({*out, bytes, true});
    }
    return result;
  }
  // False if it is not from here.
  bool give_back(const void* memory) {
    Part* part = find(memory);
    if (part != nullptr) {
      part->in_use = false;
    }
    return part != nullptr;
  }
  [[nodiscard]] bool has(const void* memory) { return find(memory) != nullptr; }

 private:
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kMost = 16;

  struct Part {
    void* memory;
    std::size_t bytes;
    bool in_use;
  };

  Part* find(const void* memory) {
    const auto found = std::find_if(parts_.begin(), parts_.end(),
                                    [memory](const Part& part) { return part.memory == memory; });
    return found != parts_.end() ? &*found : nullptr;
  }

  std::vector<Part> parts_;
};

}  // namespace keel
