// Making the file of a LogDevice, so that it is there whole or not at all.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "keel/base/os.h"
#include "log/log_device.h"
#include "log/log_trust.h"

namespace keel {
namespace {

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<int> open_directory_of(const std::string& path) {
  const int fd = os().open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd < 0) {
    return system_error(-fd, "open the log's directory");
  }
  return fd;
}

// For publish(), before all is written: one that may be written to may yet not be read.
Status check_directory_of(const std::string& path) {
  const auto directory = open_directory_of(path);
  if (!directory) {
    return directory.error();
  }
  (void)os().close(*directory);
  return {};
}

}  // namespace

Result<std::unique_ptr<LogDevice>> LogDevice::create(const std::string& path, bool buffered) {
  // A file without a name would be made, and written, before anything refuses to name it.
  if (path.empty() || path.back() == '/') {
    return Error{Errc::kInvalidArgument, 0, "the path of a new log ends with its name", 0};
  }
  auto made = make(path, buffered);
  if (!made) {
    return made.error();
  }
  LogDevice* device = made->get();
  // A file without a name until it is whole: a crash or an interrupt leaves nothing behind. Not
  // every file system has that; then the name comes first and goes again on failure.
  if (!device->open_unnamed(O_RDWR).ok()) {
    if (auto status = device->open_named(O_RDWR | O_CREAT | O_EXCL); !status) {
      return status.error();
    }
  }
  if (auto status = device->take_lock(true); !status) {
    return status.error();
  }
  if (auto status = device->make_private(); !status) {
    return status.error();
  }
  if (auto status = device->find_alignment(); !status) {
    return status.error();
  }
  if (auto status = check_directory_of(path); !status) {
    return status.error();
  }
  return made;
}

// 0600 was asked for; a umask may have taken the owner's share of it, and a file system that keeps
// no modes may have made it any. Such a one is taken as it is, if a journal would open it.
Status LogDevice::make_private() {
  struct stat found {};
  if (const int error = os().fstat(fd_, &found); error < 0) {
    return system_error(-error, "look at the new log");
  }
  constexpr mode_t kPrivate = 0600;
  if ((found.st_mode & 07777U) != kPrivate) {
    const int error = os().fchmod(fd_, kPrivate);
    if (const int again = os().fstat(fd_, &found); again < 0) {
      return system_error(-again, "look at the new log");
    }
    if ((found.st_mode & kPrivate) != kPrivate) {
      return system_error(error < 0 ? -error : EPERM, "make the log readable and writable");
    }
  }
  return check_trust(found);
}

Status LogDevice::open_unnamed(int flags) {
  const int direct = buffered_ ? 0 : O_DIRECT;
  fd_ = os().open(directory_of(path_).c_str(), flags | O_TMPFILE | direct | O_CLOEXEC, 0600);
  unnamed_ = fd_ >= 0;
  return fd_ >= 0 ? Status{} : system_error(-fd_, "make the log");
}

Status LogDevice::allocate(std::uint64_t bytes) {
  if (copy_on_write_ && os().set_no_copy_on_write(fd_) >= 0) {
    copy_on_write_ = os().is_copy_on_write(fd_) > 0;
  }
  int error = os().fallocate(fd_, 0, 0, bytes);
  if (error == -EOPNOTSUPP) {
    // The caller writes every block before publish(), which allocates as well.
    error = os().ftruncate(fd_, bytes);
  }
  if (error < 0) {
    return system_error(-error, "allocate the log", bytes);
  }
  file_bytes_ = bytes;
  return {};
}

Status LogDevice::publish() {
  if (const int error = os().fsync(fd_); error < 0) {
    return system_error(-error, "sync the new log");
  }
  if (block_device_) {
    return {};
  }
  if (unnamed_) {
    if (const int error = os().link_unnamed(fd_, path_.c_str()); error < 0) {
      return system_error(-error, "give the new log its name");
    }
    unpublished_ = true;
  }
  const auto directory = open_directory_of(path_);
  if (!directory) {
    return directory.error();
  }
  const int error = os().fsync(*directory);
  (void)os().close(*directory);
  if (error < 0) {
    return system_error(-error, "sync the log's directory");
  }
  unpublished_ = false;
  return {};
}

}  // namespace keel
