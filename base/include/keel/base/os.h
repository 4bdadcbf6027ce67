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

// Writes to one file that are under way at a time (io_uring). Opaque: made by ring_create(), known
// to the Os that made it.
struct OsRing {};

struct RingWrite {
  const struct iovec* parts = nullptr;  // they and their bytes stay until the write is taken
  int count = 0;
  int buffer = -1;  // index of the registered buffer that holds the only part; -1: none does
  std::uint64_t offset = 0;
  std::uint64_t tag = 0;  // comes back in RingDone
};

struct RingDone {
  std::uint64_t tag = 0;
  std::int64_t result = 0;  // bytes written, or a negative errno
};

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
  virtual int mlockall(int flags);
  virtual int memfd_create(const char* name, unsigned flags);
  virtual int membarrier(int command, unsigned flags, int cpu);

  // Files. open returns the descriptor.
  virtual int open(const char* path, int flags, mode_t mode);
  virtual int close(int fd);
  virtual int fstat(int fd, struct stat* out);
  // For a file that this process has just made, and no other.
  virtual int fchmod(int fd, mode_t mode);
  // Calls on it wait again, though it was opened with O_NONBLOCK.
  virtual int clear_nonblock(int fd);
  virtual int statx(int fd, unsigned mask, struct statx* out);
  virtual int ftruncate(int fd, std::uint64_t bytes);
  virtual int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes);
  // Where the next data or hole of a file begins, at or after the offset (SEEK_DATA, SEEK_HOLE);
  // -ENXIO if there is none. It also moves the descriptor's own position, which nothing here uses.
  virtual std::int64_t lseek(int fd, std::uint64_t offset, int whence);
  // Takes the whole file for this open file description; -EAGAIN if another one has it.
  virtual int lock_exclusive(int fd);
  // As above but shared with other readers; for descriptors opened read-only.
  virtual int lock_shared(int fd);
  // Ends either, also for who holds a copy of the descriptor.
  virtual int unlock(int fd);
  // The size of a block device.
  virtual int block_device_bytes(int fd, std::uint64_t* out);
  // Bytes of a physical sector: of a block device, or of the disk under a file; an error where the
  // system does not tell.
  virtual int physical_sector_bytes(int fd);
  // 1 if the file's blocks are copied on write (and rewriting them may need space), else 0.
  virtual int is_copy_on_write(int fd);
  // Asks for in-place writes on a copy-on-write file system; the file must be empty.
  virtual int set_no_copy_on_write(int fd);
  // Gives a name to a file opened with O_TMPFILE; fails with -EEXIST rather than replace.
  virtual int link_unnamed(int fd, const char* path);
  virtual int unlink(const char* path);

  // I/O, submit and completion in one call. Returns bytes moved.
  virtual ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                           int flags);
  virtual ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                          int flags);
  virtual int fdatasync(int fd);
  virtual int fsync(int fd);
  // Forgets what the page cache holds of the file and has written, or failed to write, so that it
  // is read from the disk again. A hint: pages in use stay.
  virtual int drop_clean_pages(int fd);

  // I/O, submit and completion apart. One thread at a time uses a ring; who submitted a write lives
  // until it is taken. A ring takes `entries` writes to `fd` at a time, which it registers, and the
  // buffers too if it may. Returns how many buffers it registered: all or none.
  virtual int ring_create(int fd, const struct iovec* buffers, int buffer_count, unsigned entries,
                          OsRing** out);
  // Starts a write. After an error nothing has been started.
  virtual int ring_submit(OsRing* ring, const RingWrite& write);
  // Takes one write that is complete, in any order: 1. If none is: waits, or gives 0 at once.
  virtual int ring_wait(OsRing* ring, bool block, RingDone* out);
  // No write may be under way. `inherited`: in a forked child, to whom the ring does not belong.
  virtual void ring_destroy(OsRing* ring, bool inherited);

  // Memory that this thread asks the kernel for is taken without waiting for I/O that it may have
  // to do itself (PR_SET_IO_FLUSHER). Threads forked from it inherit that.
  virtual int set_io_flusher();

  // The effective user, as whom a thread opens files unless it has set its file system's user.
  virtual uid_t geteuid();

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
