#include "log_bench/usage.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fstream>

namespace keel::bench {
namespace {

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

double process_cpu_seconds() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

std::optional<std::uint64_t> device_written_bytes(const std::string& path) {
  constexpr std::uint64_t kSectorBytes = 512;  // of the counter, whatever the device has
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) {
    return std::nullopt;
  }
  std::ifstream file("/sys/dev/block/" + std::to_string(major(found.st_dev)) + ":" +
                     std::to_string(minor(found.st_dev)) + "/stat");
  // Reads: requests, merged, sectors, ms; then writes: the same.
  std::uint64_t value = 0;
  for (int field = 0; field < 7; ++field) {
    if (!(file >> value)) {
      return std::nullopt;
    }
  }
  return value * kSectorBytes;
}

}  // namespace keel::bench
