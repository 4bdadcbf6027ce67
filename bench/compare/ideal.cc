#include "compare/ideal.h"

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "keel/base/check.h"

namespace keel::bench {
namespace {

constexpr std::size_t kFillBytes = std::size_t{4} << 20;

}  // namespace

std::uint64_t hash_of(const void* data, std::size_t bytes) { return XXH3_64bits(data, bytes); }

IoBuffer::IoBuffer(std::size_t bytes)
    : data_(static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, whole_blocks(bytes)))) {
  KEEL_CHECK(data_ != nullptr, "memory for the ideal log", bytes);
  std::memset(data_, 1, whole_blocks(bytes));
}

IoBuffer::~IoBuffer() { std::free(data_); }

Result<std::unique_ptr<IdealRing>> IdealRing::create(const std::string& dir, std::uint64_t bytes) {
  const std::string path = dir + "/ideal.log";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return system_error(errno, "open the ideal log");
  }
  std::unique_ptr<IdealRing> ring(new IdealRing(fd, whole_blocks(bytes)));
  if (const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    return system_error(error, "allocate the ideal log");
  }
  const IoBuffer fill(kFillBytes);
  for (std::uint64_t at = 0; at < ring->bytes_; at += kFillBytes) {
    const std::size_t part = std::min<std::uint64_t>(kFillBytes, ring->bytes_ - at);
    if (auto status = ring->write(fill.data(), part, false); !status) {
      return status.error();
    }
  }
  if (::fsync(fd) != 0) {
    return system_error(errno, "sync the ideal log");
  }
  return ring;
}

IdealRing::~IdealRing() { ::close(fd_); }

Status IdealRing::write(const std::byte* data, std::size_t bytes, bool durable) {
  next_ = next_ + bytes > bytes_ ? 0 : next_;
  struct iovec part {
    const_cast<std::byte*>(data), bytes
  };
  while (part.iov_len > 0) {
    const ssize_t wrote =
        ::pwritev2(fd_, &part, 1, static_cast<off_t>(next_), durable ? RWF_DSYNC : 0);
    if (wrote <= 0) {
      return system_error(wrote < 0 ? errno : EIO, "write the ideal log");
    }
    next_ += static_cast<std::uint64_t>(wrote);
    part.iov_base = static_cast<std::byte*>(part.iov_base) + wrote;
    part.iov_len -= static_cast<std::size_t>(wrote);
  }
  return {};
}

Status IdealRing::flush() {
  return ::fdatasync(fd_) == 0 ? Status{} : system_error(errno, "flush the ideal log");
}

EngineResult open_ideal(const EngineConfig& config) {
  auto ring = IdealRing::create(config.dir, config.log.value());
  if (!ring) {
    return ring.error();
  }
  switch (config.use) {
    case EngineUse::kDurable: return open_ideal_durable(config, std::move(*ring));
    case EngineUse::kAsync: return open_ideal_async(config, std::move(*ring));
    case EngineUse::kHotSet: break;
  }
  return open_ideal_hot_set(config, std::move(*ring));
}

}  // namespace keel::bench
