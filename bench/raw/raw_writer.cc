#include "raw/raw_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cerrno>
#include <thread>
#include <vector>

#include "support/clock.h"

namespace keel::bench {
namespace {

// 0 or a negative errno.
int write_all(int fd, const std::byte* data, std::size_t bytes, std::uint64_t offset) {
  while (bytes > 0) {
    const ssize_t wrote = ::pwrite(fd, data, bytes, static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote <= 0) {
      return wrote < 0 ? -errno : -EIO;
    }
    data += wrote;
    bytes -= static_cast<std::size_t>(wrote);
    offset += static_cast<std::uint64_t>(wrote);
  }
  return 0;
}

}  // namespace

RawWriter::RawWriter(int fd, const RawWriterConfig& config)
    : fd_(fd),
      config_(config),
      units_in_file_(config.file_bytes / config.unit_bytes),
      data_(config.unit_bytes) {}

RawWriter::~RawWriter() { ::close(fd_); }

Result<std::unique_ptr<RawWriter>> RawWriter::create(const std::string& path,
                                                     const RawWriterConfig& config) {
  if (config.block_bytes == 0 || config.block_bytes % kPageBytes != 0 || config.depth == 0 ||
      config.unit_bytes % kPageBytes != 0 || config.unit_bytes < config.block_bytes ||
      config.file_bytes < config.unit_bytes) {
    return Error{Errc::kInvalidArgument, 0, "block, unit and file must fit into each other", 0};
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return system_error(errno, "open the raw writer's file");
  }
  std::unique_ptr<RawWriter> writer(new RawWriter(fd, config));
  if (auto status = writer->prepare_file(); !status) {
    return status.error();
  }
  return writer;
}

// Written once whole, as a log is: unwritten extents would cost the first lap half of its rate.
Status RawWriter::prepare_file() const {
  const std::uint64_t bytes = units_in_file_ * config_.unit_bytes;
  struct stat found {};
  if (::fstat(fd_, &found) == 0 && static_cast<std::uint64_t>(found.st_size) == bytes) {
    return {};
  }
  if (const int error = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes)); error != 0) {
    return system_error(error, "allocate the raw writer's file, bytes", bytes);
  }
  for (std::uint64_t unit = 0; unit < units_in_file_; ++unit) {
    const int error = write_all(fd_, data_.data(), config_.unit_bytes, unit * config_.unit_bytes);
    if (error < 0) {
      return system_error(-error, "write the raw writer's file");
    }
  }
  return ::fsync(fd_) == 0 ? Status{} : system_error(errno, "sync the raw writer's file");
}

// Every depth-th block of the unit at `offset`. 0 or a negative errno.
int RawWriter::write_blocks(std::uint64_t offset, unsigned worker) const {
  for (std::size_t at = worker * config_.block_bytes; at < config_.unit_bytes;
       at += config_.depth * config_.block_bytes) {
    const std::size_t bytes = std::min(config_.block_bytes, config_.unit_bytes - at);
    const std::size_t from = config_.reuse_memory ? worker * config_.block_bytes : at;
    if (const int error = write_all(fd_, data_.data() + from, bytes, offset + at); error < 0) {
      return error;
    }
  }
  return 0;
}

Result<double> RawWriter::write_units(std::size_t units) {
  // Relaxed: the barrier, and at the end join(), order it.
  std::atomic<int> error{0};
  const auto flush = [this, &error]() noexcept {
    if (::fdatasync(fd_) != 0) {
      error.store(-errno, std::memory_order_relaxed);
    }
  };
  std::barrier unit_is_written(static_cast<std::ptrdiff_t>(config_.depth), flush);
  const std::uint64_t first = next_unit_;
  const auto work = [&](unsigned worker) {
    for (std::size_t i = 0; i < units; ++i) {
      const std::uint64_t unit = (first + i) % units_in_file_;
      if (const int failed = write_blocks(unit * config_.unit_bytes, worker); failed < 0) {
        error.store(failed, std::memory_order_relaxed);
      }
      unit_is_written.arrive_and_wait();
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
  next_unit_ = (first + units) % units_in_file_;
  if (const int failed = error.load(std::memory_order_relaxed); failed < 0) {
    return system_error(-failed, "write or flush the raw writer's file");
  }
  return seconds;
}

}  // namespace keel::bench
