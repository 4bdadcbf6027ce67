// The reaper: removes what the process at the other end of its standard input has not.
#include "reaper.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

namespace keel_test {
namespace {

constexpr const char* kMark = "/keel-real-";

void remove_group(const std::string& path) {
  for (int tries = 0; tries < 2000 && ::rmdir(path.c_str()) != 0 && errno == EBUSY; ++tries) {
    std::ifstream in(path + "/cgroup.procs");
    pid_t pid = 0;
    while (in >> pid) {
      (void)::kill(pid, SIGKILL);
    }
    (void)::usleep(1000);
  }
}

// A frozen file system would hold whoever waits for it for ever, and be there after its unmount.
void thaw(const std::string& place) {
  const int fd = ::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) {
    (void)::ioctl(fd, FITHAW, 0);
    (void)::close(fd);
  }
}

// What is mounted below the path, the innermost first. Our namespace has it as long as we live.
void unmount_below(const std::string& path) {
  std::ifstream in("/proc/self/mounts");
  std::vector<std::string> places;
  std::string line;
  while (std::getline(in, line)) {
    const auto begin = line.find(' ') + 1;
    const std::string place = line.substr(begin, line.find(' ', begin) - begin);
    if (place.rfind(path + "/", 0) == 0) {
      places.push_back(place);
    }
  }
  for (auto place = places.rbegin(); place != places.rend(); ++place) {
    thaw(*place);
    (void)::umount2(place->c_str(), MNT_DETACH);
  }
}

void remove(const std::string& entry) {
  const auto space = entry.find(' ');
  const std::string path = entry.substr(space + 1);
  if (path.find(kMark) == std::string::npos) {
    return;  // not one of ours
  }
  if (entry.compare(0, space, "group") == 0) {
    remove_group(path);
  } else {
    unmount_below(path);
    std::error_code error;
    for (int tries = 0; tries < 100 && std::filesystem::exists(path); ++tries) {
      std::filesystem::remove_all(path, error);
      if (error) {
        (void)::usleep(10'000);  // its users are dying
        unmount_below(path);
      }
    }
  }
}

}  // namespace

int run_reaper() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    (void)std::signal(number, SIG_IGN);
  }
  std::vector<std::string> entries;
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::string entry = line.substr(std::min<std::size_t>(2, line.size()));
    if (line[0] == '+') {
      entries.push_back(entry);
    } else {
      entries.erase(std::remove(entries.begin(), entries.end(), entry), entries.end());
    }
  }
  // What hangs in a file system that dies with them has its time to die first.
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    remove(*entry);
  }
  return 0;
}

}  // namespace keel_test
