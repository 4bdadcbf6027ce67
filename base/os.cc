#include "keel/base/os.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "keel/base/check.h"
#include "keel/base/scopes.h"
#include "keel/base/units.h"

namespace keel {
namespace {

// Not in <linux/magic.h> of every kernel.
constexpr std::uint32_t kZfsMagic = 0x2fc12fc1;
constexpr std::uint32_t kBcachefsMagic = 0xca451a4e;

// Never destroyed: static objects and late threads still call it while the process exits.
union RealOs {
  Os os;
  constexpr RealOs() : os() {}
  ~RealOs() {}
};
RealOs g_real;
// Acquire pairs with the release in ScopedOs: a thread that sees the pointer sees the object.
std::atomic<Os*> g_os{&g_real.os};

int result_of(int value) { return value < 0 ? -errno : value; }
ssize_t result_of(ssize_t value) { return value < 0 ? -errno : value; }

std::uint64_t read_clock(clockid_t clock) {
  struct timespec now {};
  KEEL_CHECK(::clock_gettime(clock, &now) == 0, "clock_gettime");
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

int lock_whole(int fd, short type) {
  struct flock whole {};
  whole.l_type = type;
  whole.l_whence = SEEK_SET;
  return result_of(::fcntl(fd, F_OFD_SETLK, &whole));
}

}  // namespace

Os& os() { return *g_os.load(std::memory_order_acquire); }

ScopedOs::ScopedOs(Os& replacement)
    : before_(g_os.exchange(&replacement, std::memory_order_acq_rel)) {}
ScopedOs::~ScopedOs() { g_os.store(before_, std::memory_order_release); }

int Os::mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
             std::uint64_t offset, void** out) {
  void* mapped = ::mmap(address, bytes, protection, flags, fd, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) {
    return -errno;
  }
  *out = mapped;
  return 0;
}

int Os::munmap(void* address, std::size_t bytes) { return result_of(::munmap(address, bytes)); }

int Os::mremap(void* old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
               void* new_address, void** out) {
  void* mapped = ::mremap(old_address, old_bytes, new_bytes, flags, new_address);
  if (mapped == MAP_FAILED) {
    return -errno;
  }
  *out = mapped;
  return 0;
}

int Os::mprotect(void* address, std::size_t bytes, int protection) {
  return result_of(::mprotect(address, bytes, protection));
}

int Os::madvise(void* address, std::size_t bytes, int advice) {
  return result_of(::madvise(address, bytes, advice));
}

int Os::mlock(const void* address, std::size_t bytes) { return result_of(::mlock(address, bytes)); }

int Os::mlockall(int flags) { return result_of(::mlockall(flags)); }

int Os::memfd_create(const char* name, unsigned flags) {
  return result_of(::memfd_create(name, flags));
}

int Os::membarrier(int command, unsigned flags, int cpu) {
  return result_of(static_cast<int>(::syscall(SYS_membarrier, command, flags, cpu)));
}

int Os::open(const char* path, int flags, mode_t mode) {
  return result_of(::open(path, flags, mode));
}

int Os::close(int fd) { return result_of(::close(fd)); }

int Os::fstat(int fd, struct stat* out) { return result_of(::fstat(fd, out)); }

int Os::fchmod(int fd, mode_t mode) { return result_of(::fchmod(fd, mode)); }

int Os::clear_nonblock(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags < 0 ? -errno : result_of(::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK));
}

int Os::statx(int fd, unsigned mask, struct statx* out) {
  return result_of(::statx(fd, "", AT_EMPTY_PATH, mask, out));
}

int Os::ftruncate(int fd, std::uint64_t bytes) {
  return result_of(::ftruncate(fd, static_cast<off_t>(bytes)));
}

int Os::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) {
  return result_of(::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(bytes)));
}

std::int64_t Os::lseek(int fd, std::uint64_t offset, int whence) {
  const off_t found = ::lseek(fd, static_cast<off_t>(offset), whence);
  return found < 0 ? -errno : found;
}

int Os::lock_exclusive(int fd) { return lock_whole(fd, F_WRLCK); }

int Os::lock_shared(int fd) { return lock_whole(fd, F_RDLCK); }

int Os::unlock(int fd) { return lock_whole(fd, F_UNLCK); }

int Os::is_copy_on_write(int fd) {
  struct statfs file_system {};
  if (::fstatfs(fd, &file_system) != 0) {
    return -errno;
  }
  const auto type = static_cast<std::uint32_t>(file_system.f_type);
  if (type == kZfsMagic) {
    return 1;
  }
  if (type != BTRFS_SUPER_MAGIC && type != kBcachefsMagic) {
    return 0;
  }
  int flags = 0;
  return ::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_NOCOW_FL) != 0 ? 0 : 1;
}

int Os::set_no_copy_on_write(int fd) {
  int flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) {
    return -errno;
  }
  flags |= FS_NOCOW_FL;
  return result_of(::ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

int Os::link_unnamed(int fd, const char* path) {
  // Before Linux 6.10 only the privileged may; the other way needs /proc.
  const int linked = result_of(::linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH));
  if (linked == 0 || linked == -EEXIST) {
    return linked;
  }
  char self[64];
  std::snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  return result_of(::linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
}

int Os::unlink(const char* path) { return result_of(::unlink(path)); }

ssize_t Os::pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                     int flags) {
  return result_of(::pwritev2(fd, parts, count, static_cast<off_t>(offset), flags));
}

ssize_t Os::preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset, int flags) {
  return result_of(::preadv2(fd, parts, count, static_cast<off_t>(offset), flags));
}

int Os::fdatasync(int fd) { return result_of(::fdatasync(fd)); }

int Os::fsync(int fd) { return result_of(::fsync(fd)); }

int Os::drop_clean_pages(int fd) { return -::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

uid_t Os::geteuid() { return ::geteuid(); }

std::uint64_t Os::monotonic_ns() { return read_clock(CLOCK_MONOTONIC); }

std::uint64_t Os::realtime_ns() { return read_clock(CLOCK_REALTIME); }

void Os::sleep_ns(std::uint64_t duration_ns) {
  // To a moment, not for a while: what a signal leaves of a while is rounded up, so that under many
  // signals it would hardly get shorter.
  struct timespec until {};
  KEEL_CHECK(::clock_gettime(CLOCK_MONOTONIC, &until) == 0, "clock_gettime");
  const std::uint64_t ns = static_cast<std::uint64_t>(until.tv_nsec) + duration_ns % 1'000'000'000U;
  until.tv_sec += static_cast<time_t>(duration_ns / 1'000'000'000U + ns / 1'000'000'000U);
  until.tv_nsec = static_cast<long>(ns % 1'000'000'000U);
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

std::uint64_t Os::random64() {
  std::uint64_t value = 0;
  ssize_t got = 0;
  do {
    got = ::getrandom(&value, sizeof value, 0);
  } while (got < 0 && errno == EINTR);
  KEEL_CHECK(got == static_cast<ssize_t>(sizeof value), "getrandom");
  return value;
}

int Os::set_io_flusher() { return result_of(::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)); }

void* Os::metadata_allocate(std::size_t bytes) {
  if (!check_allocation_allowed("metadata_allocate")) {
    return nullptr;
  }
  constexpr std::size_t kLines = 128;
  return bytes < kMetadataAlignedBytes ? std::malloc(bytes)
                                       : std::aligned_alloc(kLines, round_up(bytes, kLines));
}

void Os::metadata_free(void* address) { std::free(address); }

}  // namespace keel
