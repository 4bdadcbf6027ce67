// SpareMemoryDisk: a simulated disk for reading a log again and again, whose readers' memory is
// kept (spare_memory.h), for whatever disk. Threads: those of one SpareMemory take turns.
#pragma once

#include "support/sim_disk.h"
#include "support/spare_memory.h"

namespace keel {

class SpareMemoryDisk : public SimDisk {
 public:
  explicit SpareMemoryDisk(SpareMemory& spare, const SimDiskOptions& options = {})
      : SimDisk(options), spare_(spare) {}

  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    return spare_.map(address, bytes, protection, flags, fd, out, [&] {
      return SimDisk::mmap(address, bytes, protection, flags, fd, offset, out);
    });
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
