#include "keel/vmap/system_limits.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "keel/base/os.h"

namespace keel {
namespace {

constexpr std::uint64_t kKernelDefaultMapCount = 65530;
constexpr Bytes kAssumedMemory{std::uint64_t{1} << 30};

// Number that follows `key` (or that the file starts with) in the first 4 KiB of a /proc file.
std::optional<std::uint64_t> read_number(const char* path, const char* key) {
  const int fd = os().open(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) {
    return std::nullopt;
  }
  std::array<char, 4096> text;
  const struct iovec part = {text.data(), text.size() - 1};
  const ssize_t got = os().preadv2(fd, &part, 1, 0, 0);
  (void)os().close(fd);  // Nothing was written.
  if (got <= 0) {
    return std::nullopt;
  }
  text[static_cast<std::size_t>(got)] = '\0';
  const char* at = std::strstr(text.data(), key);
  if (at == nullptr) {
    return std::nullopt;
  }
  return std::strtoull(at + std::strlen(key), nullptr, 10);
}

}  // namespace

std::uint64_t max_map_count() {
  return read_number("/proc/sys/vm/max_map_count", "").value_or(kKernelDefaultMapCount);
}

Bytes machine_memory() {
  const std::optional<std::uint64_t> kib = read_number("/proc/meminfo", "MemTotal:");
  return kib ? Bytes(*kib * 1024) : kAssumedMemory;
}

Bytes max_file_bytes() {
  struct rlimit limit {
    RLIM_INFINITY, RLIM_INFINITY
  };
  (void)::getrlimit(RLIMIT_FSIZE, &limit);  // Fails for wrong arguments only.
  return Bytes(limit.rlim_cur);
}

}  // namespace keel
