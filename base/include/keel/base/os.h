// The one seam to the operating system.
//
// Every system call for memory, every I/O, every clock reading, random number and allocation of
// metadata goes through os(). A test puts its own Os in place (ScopedOs) to fail, delay, record or
// simulate the N-th of any of them. The default calls the kernel.
//
// I1 Calls return what the system call does, errors as a negative errno; never errno itself.
// I2 An Os is called from any thread at any time; it must be thread-safe and not call keel back.
// I3 The cost in production is one load and one virtual call beside a system call.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

struct statx;

namespace keel {

class Os {
 public:
  Os() = default;
  Os(const Os&) = delete;
  Os& operator=(const Os&) = delete;
  virtual ~Os() = default;

  // Memory. mmap and mremap give the address in *out.
  virtual int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
                   std::uint64_t offset, void** out);
  virtual int munmap(void* address, std::size_t bytes);
  virtual int mremap(void* old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
                     void* new_address, void** out);
  virtual int mprotect(void* address, std::size_t bytes, int protection);
  virtual int madvise(void* address, std::size_t bytes, int advice);
  virtual int mlock(const void* address, std::size_t bytes);
  virtual int memfd_create(const char* name, unsigned flags);
  virtual int membarrier(int command, unsigned flags, int cpu);

  // Files. open returns the descriptor.
  virtual int open(const char* path, int flags, mode_t mode);
  virtual int close(int fd);
  virtual int fstat(int fd, struct stat* out);
  virtual int statx(int fd, unsigned mask, struct statx* out);
  virtual int ftruncate(int fd, std::uint64_t bytes);
  virtual int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes);
  // Takes the whole file for this open file description; -EAGAIN if another one has it.
  virtual int lock_exclusive(int fd);
  // As above but shared with other readers; for descriptors opened read-only.
  virtual int lock_shared(int fd);
  // 1 if the file's blocks are copied on write (and rewriting them may need space), else 0.
  virtual int is_copy_on_write(int fd);
  // Asks for in-place writes on a copy-on-write file system; the file must be empty.
  virtual int set_no_copy_on_write(int fd);
  // Gives a name to a file opened with O_TMPFILE; fails with -EEXIST rather than replace.
  virtual int link_unnamed(int fd, const char* path);
  virtual int unlink(const char* path);

  // I/O: one call is both submit and completion. Returns bytes moved.
  virtual ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                           int flags);
  virtual ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                          int flags);
  virtual int fdatasync(int fd);
  virtual int fsync(int fd);

  // Clock, sleep and randomness.
  virtual std::uint64_t monotonic_ns();
  virtual std::uint64_t realtime_ns();
  virtual void sleep_ns(std::uint64_t duration_ns);
  virtual std::uint64_t random64();

  // Metadata (not pool memory). Returns nullptr when there is none; aligned for any type, and to a
  // pair of cache lines from kMetadataAlignedBytes up, for objects that keep their parts on lines
  // of their own.
  static constexpr std::size_t kMetadataAlignedBytes = 512;
  virtual void* metadata_allocate(std::size_t bytes);
  virtual void metadata_free(void* address);
};

// The Os in force. Threads: any.
[[nodiscard]] Os& os();

// Puts `replacement` in place while it lives; they nest. Threads: install before and remove after
// the threads that use it; keel objects made under one Os must die under it.
class ScopedOs {
 public:
  explicit ScopedOs(Os& replacement);
  ~ScopedOs();
  ScopedOs(const ScopedOs&) = delete;
  ScopedOs& operator=(const ScopedOs&) = delete;

 private:
  Os* before_;
};

}  // namespace keel
