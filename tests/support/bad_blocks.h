// BadBlocks: a simulated disk some bytes of which cannot be read, as a sector that has decayed or
// that a power cut has trashed: `error` for every read that meets them, whatever is written.
//
// Threads: any; arm it while nothing reads.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "support/sim_disk.h"

namespace keel_test {

class BadBlocks : public keel::SimDisk {
 public:
  using SimDisk::SimDisk;

  void make_bad(std::uint64_t offset, std::uint64_t bytes) {
    bad_.emplace_back(offset, offset + bytes);
  }
  void mend() { bad_.clear(); }
  int error = EIO;  // or what direct I/O says of a sector: ENODATA

  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override {
    std::uint64_t end = offset;
    for (int i = 0; i < count; ++i) {
      end += parts[i].iov_len;
    }
    for (const auto& [from, to] : bad_) {
      if (offset < to && from < end) {
        return -error;
      }
    }
    return SimDisk::preadv2(fd, parts, count, offset, flags);
  }

 private:
  std::vector<std::pair<std::uint64_t, std::uint64_t>> bad_;  // [from, to)
};

}  // namespace keel_test
