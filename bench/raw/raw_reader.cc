#include "raw/raw_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "support/clock.h"

namespace keel::bench {
namespace {

// 0 or a negative errno; -ENODATA at the end of the file.
int read_all(int fd, std::byte* place, std::size_t bytes, std::uint64_t offset) {
  while (bytes > 0) {
    const ssize_t got = ::pread(fd, place, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return got < 0 ? -errno : -ENODATA;
    }
    place += got;
    bytes -= static_cast<std::size_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return 0;
}

// Touched. nullptr if there is none.
std::byte* make_memory(std::size_t bytes) {
  constexpr std::size_t kHugeBytes = std::size_t{2} << 20;
  const std::size_t whole = (bytes + kHugeBytes - 1) / kHugeBytes * kHugeBytes;
  void* memory = std::aligned_alloc(kHugeBytes, whole);
  if (memory != nullptr) {
    (void)::madvise(memory, whole, MADV_HUGEPAGE);
    std::memset(memory, 1, whole);
  }
  return static_cast<std::byte*>(memory);
}

}  // namespace

RawReader::RawReader(int fd, const RawReaderConfig& config, std::byte* memory)
    : fd_(fd), config_(config), memory_(memory) {}

RawReader::~RawReader() {
  ::close(fd_);
  std::free(memory_);
}

Result<std::unique_ptr<RawReader>> RawReader::open(const std::string& path,
                                                   const RawReaderConfig& config) {
  if (config.block_bytes == 0 || config.depth == 0 || config.bytes == 0) {
    return Error{Errc::kInvalidArgument, 0, "nothing to read", 0};
  }
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) {
    return system_error(errno, "open the raw reader's file");
  }
  std::byte* memory = make_memory(config.block_bytes * config.depth);
  if (memory == nullptr) {
    ::close(fd);
    return Error{Errc::kNoMemory, 0, "the raw reader's memory", config.block_bytes};
  }
  return std::unique_ptr<RawReader>(new RawReader(fd, config, memory));
}

Result<double> RawReader::read_once() {
  // Relaxed: each block is for one thread, whichever; join() orders the end.
  std::atomic<std::uint64_t> next{0};
  std::atomic<int> error{0};
  const auto work = [&](unsigned worker) {
    std::byte* place = memory_ + worker * config_.block_bytes;
    for (;;) {
      const std::uint64_t at = next.fetch_add(config_.block_bytes, std::memory_order_relaxed);
      if (at >= config_.bytes || error.load(std::memory_order_relaxed) != 0) {
        return;
      }
      const std::size_t bytes = std::min<std::uint64_t>(config_.block_bytes, config_.bytes - at);
      if (const int failed = read_all(fd_, place, bytes, config_.offset + at); failed < 0) {
        error.store(failed, std::memory_order_relaxed);
      }
    }
  };
  const Stopwatch watch;
  std::vector<std::thread> others;
  for (unsigned worker = 1; worker < config_.depth; ++worker) {
    others.emplace_back(work, worker);
  }
  work(0);
  for (std::thread& other : others) {
    other.join();
  }
  const double seconds = watch.seconds();
  if (const int failed = error.load(std::memory_order_relaxed); failed < 0) {
    return system_error(-failed, "read the raw reader's file");
  }
  return seconds;
}

}  // namespace keel::bench
