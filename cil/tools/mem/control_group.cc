// The limit that control groups put on memory, of either version.
#include <filesystem>
#include <fstream>

#include "mem/machine.h"

namespace keel::tools {
namespace {

namespace fs = std::filesystem;

// Version 1 says "no limit" with a number near 2^63.
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 62;

std::optional<Bytes> read_limit(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t bytes = 0;  // "max" is no number
  if (!(file >> bytes) || bytes >= kNoLimit) {
    return std::nullopt;
  }
  return Bytes(bytes);
}

// From `group` up to `root`, since each limits those below.
std::optional<Bytes> least_limit(const fs::path& root, const std::string& group, const char* file) {
  std::optional<Bytes> least;
  fs::path path = fs::path(group).relative_path();
  for (;;) {
    const auto limit = read_limit(root / path / file);
    if (limit && (!least || *limit < *least)) {
      least = limit;
    }
    if (path.empty()) {
      return least;
    }
    path = path.parent_path();
  }
}

}  // namespace

std::optional<Bytes> control_group_limit() {
  std::ifstream groups("/proc/self/cgroup");
  std::optional<Bytes> found;
  // Lines are "number:controllers:path"; version 2 is the one without controllers.
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") {
      found = least_limit("/sys/fs/cgroup", group, "memory.max");
    } else if (controllers.find(",memory,") != std::string::npos) {
      return least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
    }
  }
  return found;
}

}  // namespace keel::tools
