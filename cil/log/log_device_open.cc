// Opening the file of a LogDevice: what it is, who has it, what direct I/O wants of it.
#include "log/log_device.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "keel/base/os.h"
#include "keel/base/units.h"
#include "log/format.h"
#include "log/log_trust.h"

namespace keel {
namespace {

// Where the file system does not say: no disk today has larger sectors.
constexpr std::uint32_t kDefaultAlignment = 4096;

Error open_error(int sys_errno, bool buffered) {
  switch (sys_errno) {
    case EINVAL:
      if (!buffered) {
        return {Errc::kUnsupported, 0, "the file system has no direct I/O for this file", 0};
      }
      break;
    case ELOOP: return {Errc::kNotALog, 0, "the path is a symbolic link", 0};
    case EISDIR: return {Errc::kNotALog, 0, "the path is a directory", 0};
    case EBUSY: return {Errc::kBusy, 0, "the device is in use: mounted, or part of another", 0};
    default: break;
  }
  return system_error(sys_errno, "open the log");
}

// Locks the log, as the kernel answers. A killed process keeps its lock for as long as the kernel
// is busy with writes that it had started: they may land at any time until then, so there is
// nothing to do but to wait a little.
int lock_in_time(int fd, bool writing) {
  constexpr int kTries = 100;
  constexpr std::uint64_t kPauseNs = 10'000'000;
  int locked = 0;
  for (int i = 0; i < kTries; ++i) {
    locked = writing ? os().lock_exclusive(fd) : os().lock_shared(fd);
    if (locked != -EAGAIN && locked != -EACCES) {
      break;
    }
    os().sleep_ns(kPauseNs);
  }
  return locked;
}

Error kind_error(mode_t mode) {
  return {Errc::kNotALog, 0,
          S_ISDIR(mode)   ? "the path is a directory"
          : S_ISLNK(mode) ? "the path is a symbolic link"
                          : "the path is neither a regular file nor a block device",
          0};
}

Status check_kind_of(int fd, struct stat& found) {
  if (const int error = os().fstat(fd, &found); error < 0) {
    return system_error(-error, "look at the log");
  }
  if (!S_ISREG(found.st_mode) && !S_ISBLK(found.st_mode)) {
    return kind_error(found.st_mode);
  }
  return {};
}

// As above, of what stands at a path, which is not opened: that would release who waits at a pipe,
// wind a tape, start a watchdog.
Status check_kind_of(const std::string& path, struct stat& found) {
  const int fd = os().open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
  if (fd < 0) {
    return open_error(-fd, true);
  }
  const Status status = check_kind_of(fd, found);
  (void)os().close(fd);
  return status;
}

}  // namespace

Result<std::unique_ptr<LogDevice>> LogDevice::make(const std::string& path, bool buffered) {
  std::unique_ptr<LogDevice> device(new (std::nothrow) LogDevice(path, buffered));
  if (device == nullptr) {
    return Error{Errc::kNoMemory, 0, "open the log", 0};
  }
  return device;
}

Result<std::unique_ptr<LogDevice>> LogDevice::open(const std::string& path, DeviceMode mode,
                                                   bool buffered) {
  auto made = make(path, buffered);
  if (!made) {
    return made.error();
  }
  LogDevice* device = made->get();
  const bool writing = mode == DeviceMode::kReadWrite;
  if (auto status = device->open_existing(writing); !status) {
    return status.error();
  }
  if (auto status = device->take_lock(writing); !status) {
    return status.error();
  }
  // Whoever had it may have given it away or replaced it before the lock was had.
  struct stat found {};
  if (auto status = device->check_file(writing, found); !status) {
    return status.error();
  }
  if (auto status = device->find_alignment(); !status) {
    return status.error();
  }
  if (auto status = device->fork_guard_.arm(); !status) {
    return status.error();
  }
  return made;
}

Status LogDevice::take_lock(bool writing) {
  const int locked = lock_in_time(fd_, writing);
  if (locked == -EAGAIN || locked == -EACCES) {
    return Error{Errc::kBusy, 0, "another journal or tool has the log open", 0};
  }
  if (locked < 0) {
    return system_error(-locked, "lock the log");
  }
  locked_ = true;
  return {};
}

// The lock belongs to the open file, which lives on while a forked child, or a ring that the kernel
// has yet to clear away, has it too: so it is ended, not left to end. A child does not end it. A
// name that is to go goes first: who waits for the lock finds that the file has lost it.
LogDevice::~LogDevice() {
  if (unpublished_) {
    (void)os().unlink(path_.c_str());
  }
  if (locked_ && owned_by_this_process()) {
    (void)os().unlock(fd_);
  }
  if (fd_ >= 0) {
    (void)os().close(fd_);
  }
}

Status LogDevice::open_named(int flags) {
  const int direct = buffered_ ? 0 : O_DIRECT;
  fd_ = os().open(path_.c_str(), flags | direct | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
  const bool created = (flags & O_CREAT) != 0;
  if (fd_ < 0) {
    // Linux makes the name before it finds that the file system refuses O_DIRECT.
    unpublished_ = created && fd_ == -EINVAL;
    return open_error(-fd_, buffered_);
  }
  unpublished_ = created;
  return {};
}

// The look spares what is no log the opening; what counts is decided on what was opened.
Status LogDevice::open_existing(bool writing) {
  struct stat found {};
  if (auto status = check_kind_of(path_, found); !status) {
    return status;
  }
  if (auto status = open_named(writing ? O_RDWR : O_RDONLY); !status) {
    return status;
  }
  if (auto status = check_file(writing, found); !status) {
    return status;
  }
  if (S_ISBLK(found.st_mode)) {
    if (auto status = take_block_device(found.st_rdev, writing); !status) {
      return status;
    }
  }
  // That was against a pipe in the path's place. Before 6.5 Linux takes it to mean that a write to
  // a ring shall rather fail than wait, where the disk cannot say beforehand whether it would.
  if (const int error = os().clear_nonblock(fd_); error < 0) {
    return system_error(-error, "open the log");
  }
  return {};
}

// Of the open descriptor. A device node is nobody's file: it may have as many names as it likes.
Status LogDevice::check_file(bool writing, struct stat& found) {
  if (auto status = check_kind_of(fd_, found); !status) {
    return status;
  }
  if (S_ISREG(found.st_mode)) {
    if (found.st_nlink == 0) {
      return Error{Errc::kNotALog, 0, "the file has lost its name", 0};
    }
    if (found.st_nlink != 1) {
      return Error{Errc::kNotALog, 0, "the file has more than one name (hard links)",
                   found.st_nlink};
    }
    file_bytes_ = static_cast<std::uint64_t>(found.st_size);
  }
  const Status trust = check_trust(found);
  untrusted_ = trust.ok() ? "" : trust.error().what;
  return writing ? trust : Status{};
}

// O_EXCL claims a block device against mounts and against openers by another of its nodes, which
// the lock does not meet. What it does to other files is not defined, so it takes a second opening,
// once it is known what the path names. Readers may share a device with whoever has claimed it.
Status LogDevice::take_block_device(std::uint64_t number, bool writing) {
  block_device_ = true;
  if (writing) {
    const int before = fd_;
    const Status claimed = open_named(O_RDWR | O_EXCL);
    (void)os().close(before);
    if (!claimed) {
      return claimed;
    }
    struct stat found {};
    if (auto status = check_file(writing, found); !status) {
      return status;
    }
    if (!S_ISBLK(found.st_mode) || found.st_rdev != number) {
      return Error{Errc::kBusy, 0, "the path names another device by now", 0};
    }
  }
  if (const int error = os().block_device_bytes(fd_, &file_bytes_); error < 0) {
    return system_error(-error, "find the size of the device");
  }
  return {};
}

Result<LogDevice::PathKind> LogDevice::kind_of(const std::string& path) {
  struct stat found {};
  const Status status = check_kind_of(path, found);
  if (status.ok()) {
    return S_ISBLK(found.st_mode) ? PathKind::kBlockDevice : PathKind::kOther;
  }
  switch (status.error().code) {
    case Errc::kNotFound: return PathKind::kNothing;
    case Errc::kNotALog: return PathKind::kOther;
    default: return status.error();
  }
}

Status LogDevice::find_alignment() {
  struct statx found {};
  const int error = os().statx(fd_, STATX_DIOALIGN, &found);
  const bool told = error >= 0 && (found.stx_mask & STATX_DIOALIGN) != 0;
  if (told && found.stx_dio_offset_align == 0 && !buffered_) {
    return Error{Errc::kUnsupported, 0, "the file system has no direct I/O for this file", 0};
  }
  const std::uint32_t stated =
      told ? std::max(found.stx_dio_offset_align, found.stx_dio_mem_align) : kDefaultAlignment;
  // A write of less than a physical sector is a read, a change and a write of all of it: a power
  // cut would tear what stands beside it.
  const int sector = os().physical_sector_bytes(fd_);
  alignment_ = std::max(
      {stated, format::kMinBlockBytes, sector > 0 ? static_cast<std::uint32_t>(sector) : 0U});
  if (told && found.stx_dio_mem_align > kPageBytes) {
    return Error{Errc::kUnsupported, 0, "direct I/O wants memory aligned beyond a page",
                 found.stx_dio_mem_align};
  }
  if (alignment_ > format::kMaxBlockBytes || !is_power_of_two(alignment_)) {
    return Error{Errc::kUnsupported, 0, "direct I/O wants units that no log block has, bytes",
                 alignment_};
  }
  copy_on_write_ = os().is_copy_on_write(fd_) > 0;
  return {};
}

}  // namespace keel
