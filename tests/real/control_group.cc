#include "control_group.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "environment.h"

namespace keel_test {
namespace {

constexpr const char* kRoot = "/sys/fs/cgroup";

bool has_word(const std::string& path, const std::string& word) {
  std::ifstream in(path);
  std::string one;
  while (in >> one) {
    if (one == word) {
      return true;
    }
  }
  return false;
}

bool write_file(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool done =
      fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  (void)::close(fd);
  return done;
}

}  // namespace

std::unique_ptr<ControlGroup> ControlGroup::make(Of of, std::string& why) {
  prepare_environment();
  std::unique_ptr<ControlGroup> group(new ControlGroup);
  const std::string root = kRoot;
  group->version2_ = ::access((root + "/cgroup.controllers").c_str(), F_OK) == 0;
  if (group->version2_) {
    const char* name = of == Of::kMemory ? "memory" : "io";
    group->root_ = root;
    // To hand one down is a change of the whole machine, which is not for a test to make.
    if (!has_word(root + "/cgroup.subtree_control", name)) {
      why = std::string("the root control group does not hand down ") + name;
      return nullptr;
    }
  } else {
    group->root_ = root + (of == Of::kMemory ? "/memory" : "/blkio");
  }
  static int count = 0;
  group->path_ =
      group->root_ + "/keel-real-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
  if (::mkdir(group->path_.c_str(), 0700) != 0) {
    why = "no control group in " + group->root_ + ": " + std::strerror(errno);
    group->path_.clear();
    return nullptr;
  }
  reap_later("group", group->path_);
  return group;
}

ControlGroup::~ControlGroup() {
  if (path_.empty()) {
    return;
  }
  for (int tries = 0; ::rmdir(path_.c_str()) != 0 && errno == EBUSY && tries < 1000; ++tries) {
    (void)::usleep(1000);  // the last process is gone, its accounts take a moment
  }
  reap_no_more("group", path_);
}

bool ControlGroup::limit_memory(std::uint64_t bytes) const {
  const std::string limit = std::to_string(bytes);
  if (version2_) {
    (void)write("memory.swap.max", "0");  // There is none, or the kernel does not count it.
    return write("memory.max", limit);
  }
  // With the swap: never below what is without, at no time.
  (void)write("memory.memsw.limit_in_bytes", "-1");
  const bool limited = write("memory.limit_in_bytes", limit);
  (void)write("memory.memsw.limit_in_bytes", limit);
  return limited;
}

bool ControlGroup::limit_writes(const std::string& device, std::uint64_t bytes_a_second) const {
  const std::string number = std::to_string(bytes_a_second);
  return version2_ ? write("io.max", device + " wbps=" + (bytes_a_second == 0 ? "max" : number))
                   : write("blkio.throttle.write_bps_device", device + " " + number);
}

bool ControlGroup::enter() const { return write("cgroup.procs", std::to_string(::getpid())); }

void ControlGroup::leave() const {
  (void)write_file(root_ + "/cgroup.procs", std::to_string(::getpid()));
}

bool ControlGroup::write(const std::string& file, const std::string& text) const {
  return write_file(path_ + "/" + file, text);
}

}  // namespace keel_test
