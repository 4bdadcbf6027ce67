// A loop device over a file, with direct I/O where the file's file system has it; detached with it,
// and with whoever made it.
#pragma once

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

namespace keel_test {

class LoopDevice {
 public:
  // nullptr, and `why`, if there is none to be had.
  [[nodiscard]] static std::unique_ptr<LoopDevice> attach(const std::string& file,
                                                          std::string& why) {
    std::unique_ptr<LoopDevice> made(new LoopDevice);
    const int backing = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    const int control = backing < 0 ? -1 : ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    // Somebody else may take the free number first; then the next is tried.
    bool done = false;
    for (int tries = 0; control >= 0 && !done && tries < 16; ++tries) {
      done = made->take(control, backing);
    }
    if (!done) {
      why = std::string("no loop device: ") + std::strerror(errno);
    }
    (void)::close(control);
    (void)::close(backing);
    return done ? std::move(made) : nullptr;
  }
  ~LoopDevice() {
    if (fd_ >= 0) {
      (void)::ioctl(fd_, LOOP_CLR_FD);
      (void)::close(fd_);
    }
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  LoopDevice() = default;

  // False with errno set.
  bool take(int control, int backing) {
    const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
    path_ = "/dev/loop" + std::to_string(number);
    const int fd = number < 0 ? -1 : ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
      return false;
    }
    struct loop_config config {};
    config.fd = static_cast<std::uint32_t>(backing);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if (::ioctl(fd, LOOP_CONFIGURE, &config) != 0) {
      const int error = errno;
      (void)::close(fd);
      errno = error;
      return false;
    }
    fd_ = fd;
    return true;
  }

  std::string path_;
  int fd_ = -1;
};

}  // namespace keel_test
