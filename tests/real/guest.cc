#include "guest.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "writer.h"

namespace keel_test {
namespace {

constexpr const char* kDisk = "/dev/vda";

void mount_or_say(const char* what, const char* directory, const char* type, unsigned long flags) {
  if (::mount(what, directory, type, flags, nullptr) != 0) {
    (void)std::printf("guest: no mount of %s: %s\n", type, std::strerror(errno));
  }
}

// In the order of their names, which is that of what they need.
void load_modules() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator("/modules")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    // One for another CPU says that there is no such device.
    if (::syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST && errno != ENODEV) {
      (void)std::printf("guest: no module %s: %s\n", file.c_str(), std::strerror(errno));
    }
    (void)::close(fd);
  }
}

}  // namespace

bool is_guest() { return ::getpid() == 1; }

void run_guest(const std::vector<std::string>& words) {
  (void)std::setvbuf(stdout, nullptr, _IOLBF, 0);
  mount_or_say("dev", "/dev", "devtmpfs", 0);
  mount_or_say("proc", "/proc", "proc", 0);
  mount_or_say("sys", "/sys", "sysfs", 0);
  load_modules();
  mount_or_say(kDisk, "/disk", words[0].c_str(), MS_NOATIME);
  (void)std::printf("%s\n", kGuestMounted);
  const WriterPlan plan = WriterPlan::from(words);
  // The ledger is memory of a device that no driver has switched on.
  std::ofstream(std::filesystem::path(plan.ledger).parent_path() / "enable") << 1;
  (void)std::printf("guest: the writer ended with %d\n", run_writer(plan));
  for (;;) {
    (void)::pause();
  }
}

}  // namespace keel_test
