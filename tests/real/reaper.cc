// The reaper: removes what the process at the other end of its standard input has not.
#include "reaper.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

void remove(const std::string& entry) {
  const auto space = entry.find(' ');
  const std::string path = entry.substr(space + 1);
  if (path.find(kMark) == std::string::npos) {
    return;  // not one of ours
  }
  if (entry.compare(0, space, "group") == 0) {
    remove_group(path);
  } else {
    std::error_code error;
    std::filesystem::remove_all(path, error);
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
