// ImageOs: one log file in flat memory that is only read, for tests that read it a million times.
//
// Where a SimDisk keeps what a crash needs to know, this keeps bytes: a case changes a few of them,
// has the log read, and puts them back. Reads are one copy; nothing is recorded; the buffers of a
// reader are mapped once. What reading must not do is a failure of the call and counted: a write, a
// change of the file.
//
// I1 Where the file's blocks are all zero it has a hole, as an allocated file that was never
//    written has, or none at all (`holes`).
// Threads: one.
#pragma once

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "keel/base/os.h"
#include "support/spare_memory.h"

namespace keel_test {

class ImageOs : public keel::Os {
 public:
  static constexpr const char* kPath = "/sim/log";
  static constexpr int kDescriptor = std::numeric_limits<int>::max();  // above all of SimDisks

  explicit ImageOs(std::vector<std::byte> image, bool holes = true)
      : image_(std::move(image)), holes_(holes) {
    find_holes();
  }
  // All bytes, to read. Changes go through the calls below.
  [[nodiscard]] const std::vector<std::byte>& image() const { return image_; }
  void replace(const std::vector<std::byte>& image) {
    image_ = image;
    find_holes();
  }
  void put(std::size_t offset, const std::byte* from, std::size_t bytes) {
    if (bytes != 0) {
      std::memcpy(image_.data() + offset, from, bytes);
      note_blocks(offset, bytes);
    }
  }
  void flip(std::size_t bit) {
    image_[bit / 8] ^= std::byte{1} << (bit % 8);
    note_blocks(bit / 8, 1);
  }
  void resize(std::size_t bytes) {
    image_.resize(bytes);
    find_holes();
  }
  // Calls that reading has no business with.
  [[nodiscard]] std::uint64_t forbidden() const { return forbidden_; }

  int open(const char* path, int flags, mode_t mode) override {
    return std::string_view(path) == kPath ? kDescriptor : Os::open(path, flags, mode);
  }
  int close(int fd) override { return fd == kDescriptor ? 0 : Os::close(fd); }
  int fstat(int fd, struct stat* out) override {
    if (fd != kDescriptor) return Os::fstat(fd, out);
    *out = {};
    out->st_mode = S_IFREG | 0600;
    out->st_nlink = 1;
    out->st_uid = ::geteuid();
    out->st_size = static_cast<off_t>(image_.size());
    return 0;
  }
  int statx(int fd, unsigned mask, struct statx* out) override {
    if (fd != kDescriptor) return Os::statx(fd, mask, out);
    *out = {};
    out->stx_mask = STATX_BASIC_STATS | STATX_DIOALIGN;
    out->stx_mode = S_IFREG | 0600;
    out->stx_nlink = 1;
    out->stx_uid = ::geteuid();
    out->stx_size = image_.size();
    out->stx_dio_mem_align = 512;
    out->stx_dio_offset_align = 512;
    return 0;
  }
  int clear_nonblock(int fd) override { return fd == kDescriptor ? 0 : Os::clear_nonblock(fd); }
  int lock_exclusive(int fd) override { return fd == kDescriptor ? 0 : Os::lock_exclusive(fd); }
  int lock_shared(int fd) override { return fd == kDescriptor ? 0 : Os::lock_shared(fd); }
  int unlock(int fd) override { return fd == kDescriptor ? 0 : Os::unlock(fd); }
  int physical_sector_bytes(int fd) override {
    return fd == kDescriptor ? 512 : Os::physical_sector_bytes(fd);
  }
  int is_copy_on_write(int fd) override { return fd == kDescriptor ? 0 : Os::is_copy_on_write(fd); }
  std::int64_t lseek(int fd, std::uint64_t offset, int whence) override {
    if (fd != kDescriptor) return Os::lseek(fd, offset, whence);
    if (offset >= image_.size()) return -ENXIO;
    if (!holes_) return static_cast<std::int64_t>(whence == SEEK_DATA ? offset : image_.size());
    for (std::size_t block = offset / kBlock; block < data_.size(); ++block) {
      if (data_[block] == (whence == SEEK_DATA)) {
        return static_cast<std::int64_t>(std::max<std::uint64_t>(offset, block * kBlock));
      }
    }
    return whence == SEEK_DATA ? -ENXIO : static_cast<std::int64_t>(image_.size());
  }
  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override {
    if (fd != kDescriptor) return Os::preadv2(fd, parts, count, offset, flags);
    ssize_t done = 0;
    for (int i = 0; i < count && offset < image_.size(); ++i) {
      const std::size_t bytes = std::min<std::size_t>(parts[i].iov_len, image_.size() - offset);
      std::memcpy(parts[i].iov_base, image_.data() + offset, bytes);
      offset += bytes;
      done += static_cast<ssize_t>(bytes);
    }
    return done;
  }
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    return fd == kDescriptor ? forbid() : Os::pwritev2(fd, parts, count, offset, flags);
  }
  int ftruncate(int fd, std::uint64_t bytes) override {
    return fd == kDescriptor ? forbid() : Os::ftruncate(fd, bytes);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) override {
    return fd == kDescriptor ? forbid() : Os::fallocate(fd, mode, offset, bytes);
  }
  int fdatasync(int fd) override { return fd == kDescriptor ? 0 : Os::fdatasync(fd); }
  int fsync(int fd) override { return fd == kDescriptor ? 0 : Os::fsync(fd); }

  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    return spare_.map(address, bytes, protection, flags, fd, out,
                      [&] { return Os::mmap(address, bytes, protection, flags, fd, offset, out); });
  }
  int munmap(void* address, std::size_t bytes) override {
    return spare_.give_back(address) ? 0 : Os::munmap(address, bytes);
  }
  int madvise(void* address, std::size_t bytes, int advice) override {
    return spare_.has(address) ? 0 : Os::madvise(address, bytes, advice);
  }

 private:
  static constexpr std::size_t kBlock = 4096;

  int forbid() {
    ++forbidden_;
    return -EROFS;
  }
  void find_holes() {
    data_.assign((image_.size() + kBlock - 1) / kBlock, false);
    note_blocks(0, image_.size());
  }
  void note_blocks(std::size_t offset, std::size_t bytes) {
    for (std::size_t block = offset / kBlock; block * kBlock < offset + bytes; ++block) {
      const std::size_t length = std::min(kBlock, image_.size() - block * kBlock);
      const std::byte* at = image_.data() + block * kBlock;
      data_[block] = *at != std::byte{0} || std::memcmp(at, at + 1, length - 1) != 0;
    }
  }

  std::vector<std::byte> image_;
  const bool holes_;
  std::vector<bool> data_;  // by block: not all zeros
  keel::SpareMemory spare_;
  std::uint64_t forbidden_ = 0;
};

}  // namespace keel_test
