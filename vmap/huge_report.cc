// What huge pages the direct map really got: the kernel's own account of it.
//
// The advice says nothing about what was given (it is accepted with huge shared memory switched
// off), so the mapping's entry in /proc/self/smaps is read.
#include <fcntl.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "keel/base/os.h"
#include "keel/vmap/frame_store.h"

namespace keel {
namespace {

// Adds up ShmemPmdMapped of the mappings that lie in [start, end), fed line by line.
struct SmapsSum {
  std::uintptr_t start;
  std::uintptr_t end;
  bool inside = false;
  std::uint64_t kib = 0;

  void take(const char* line) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    std::uint64_t value = 0;
    if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
      inside = from >= start && to <= end;
    } else if (inside && std::sscanf(line, "ShmemPmdMapped: %" SCNu64, &value) == 1) {
      kib += value;
    }
  }
};

// Feeds whole lines of `text` to `sum`; returns how many bytes are left over at the end.
std::size_t feed_lines(char* text, std::size_t length, SmapsSum& sum) {
  char* line = text;
  char* const end = text + length;
  while (char* newline =
             static_cast<char*>(std::memchr(line, '\n', static_cast<std::size_t>(end - line)))) {
    *newline = '\0';
    sum.take(line);
    line = newline + 1;
  }
  const auto rest = static_cast<std::size_t>(end - line);
  std::memmove(text, line, rest);
  return rest;
}

Status read_smaps(int fd, SmapsSum& sum) {
  std::array<char, 8192> buffer;
  std::uint64_t offset = 0;
  std::size_t kept = 0;
  for (;;) {
    const struct iovec part = {buffer.data() + kept, buffer.size() - kept};
    const ssize_t got = os().preadv2(fd, &part, 1, offset, 0);
    if (got < 0) {
      return system_error(static_cast<int>(-got), "reading /proc/self/smaps");
    }
    if (got == 0) {
      return {};
    }
    offset += static_cast<std::uint64_t>(got);
    kept = feed_lines(buffer.data(), kept + static_cast<std::size_t>(got), sum);
    if (kept == buffer.size()) {
      return Error{Errc::kUnsupported, 0, "a line of /proc/self/smaps longer than bytes", kept};
    }
  }
}

}  // namespace

Result<Bytes> FrameStore::huge_bytes() const {
  const int fd = os().open("/proc/self/smaps", O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) {
    return system_error(-fd, "opening /proc/self/smaps");
  }
  const auto start = reinterpret_cast<std::uintptr_t>(base_);
  SmapsSum sum{start, start + config_.capacity_bytes};
  const Status status = read_smaps(fd, sum);
  (void)os().close(fd);  // Nothing was written.
  if (!status) {
    return status.error();
  }
  return Bytes(sum.kib * 1024);
}

}  // namespace keel
