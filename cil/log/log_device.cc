#include "log/log_device.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "log/write_progress.h"

namespace keel {

Status LogDevice::read(std::uint64_t offset, void* buffer, std::size_t bytes) const {
  auto* place = static_cast<std::byte*>(buffer);
  while (bytes > 0) {
    struct iovec part {
      place, bytes
    };
    const ssize_t got = os().preadv2(fd_, &part, 1, offset, 0);
    if (got == -EINTR) {
      continue;
    }
    if (got < 0) {
      return system_error(static_cast<int>(-got), "read the log at byte", offset);
    }
    if (got == 0) {
      return Error{Errc::kDamaged, 0, "the log file ends early, at byte", offset};
    }
    place += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
  return {};
}

// What is written but not yet on disk counts as data, whichever way it was written; space that was
// allocated and never written may count as a hole, and reads as zeros.
LogDevice::Extent LogDevice::next_data(std::uint64_t offset) const {
  const Extent rest{offset, std::max(offset, file_bytes_)};
  if (block_device_ || offset >= file_bytes_) {
    return rest;
  }
  const std::int64_t data = os().lseek(fd_, offset, SEEK_DATA);
  if (data == -ENXIO) {
    return {file_bytes_, file_bytes_};
  }
  if (data < 0 || static_cast<std::uint64_t>(data) < offset) {
    return rest;
  }
  const auto from = static_cast<std::uint64_t>(data);
  const std::int64_t hole = os().lseek(fd_, from, SEEK_HOLE);
  return {from, hole <= data ? rest.to : static_cast<std::uint64_t>(hole)};
}

Status LogDevice::write(std::uint64_t offset, struct iovec* parts, int count) {
  return write_parts(offset, parts, count, 0);
}

// One call where the parts fit into one. It is no slower than a write and a flush where the disk
// has a volatile cache, and where the disk can write through that cache it spares the flush.
Status LogDevice::write_durable(std::uint64_t offset, struct iovec* parts, int count) {
  if (!buffered_) {
    return write_through(offset, parts, count);
  }
  MutexLock turn(flush_mutex_);
  return write_through(offset, parts, count);
}

Status LogDevice::write_through(std::uint64_t offset, struct iovec* parts, int count) {
  if (dsync_.load(std::memory_order_relaxed) != Dsync::kUnknown) {
    return write_parts(offset, parts, count, RWF_DSYNC);
  }
  if (auto status = write_parts(offset, parts, count, 0); !status) {
    return status;
  }
  return flush_file();
}

Status LogDevice::write_parts(std::uint64_t offset, struct iovec* parts, int count, int flags) {
  if (auto failed = status(); !failed) {
    return failed;
  }
  check_aligned(offset, parts, count);
  bool flush_after = false;
  WriteProgress progress(offset, parts, count);
  while (!progress.done()) {
    const ssize_t wrote =
        os().pwritev2(fd_, progress.parts(), progress.count(), progress.offset(), flags);
    if (wrote == -EOPNOTSUPP && flags != 0 && settle_dsync(Dsync::kUnknown) == Dsync::kUnknown) {
      // Not a failed write: the file system does not know the flag, and has looked at nothing else.
      flags = 0;
      flush_after = true;
      continue;
    }
    if (auto moved = progress.advance(wrote, alignment_); !moved) {
      return fail(moved.error());
    }
    if (flags != 0 && wrote > 0) {
      (void)settle_dsync(Dsync::kKnown);
    }
    // More than one call: whatever each has made durable, one flush covers them all.
    flush_after |= flags != 0 && !progress.done() && wrote >= 0;
  }
  return flush_after ? flush_file() : status();
}

// What holds from now on: what was found first. Once a write with the flag was taken, EOPNOTSUPP is
// about something else, and a failed write.
LogDevice::Dsync LogDevice::settle_dsync(Dsync found) {
  Dsync now = dsync_.load(std::memory_order_relaxed);
  if (now == Dsync::kUntried &&
      dsync_.compare_exchange_strong(now, found, std::memory_order_relaxed)) {
    return found;
  }
  return now;
}

// The kernel tells a failed write-back once per open file: of two flushes at a time only one would
// hear of it, and the other would call stable what is lost. So they take turns, but for direct I/O,
// which has no write-back: there each call hears of its own failure.
Status LogDevice::flush() {
  if (!buffered_) {
    return flush_file();
  }
  MutexLock turn(flush_mutex_);
  return flush_file();
}

Status LogDevice::flush_file() {
  if (auto failed = status(); !failed) {
    return failed;
  }
  if (const int error = os().fdatasync(fd_); error < 0) {
    return fail(system_error(-error, "flush the log"));
  }
  return status();
}

void LogDevice::forget_cached() const {
  if (buffered_) {
    (void)os().drop_clean_pages(fd_);
  }
}

void LogDevice::check_aligned(std::uint64_t offset, const struct iovec* parts, int count) const {
  if (buffered_) {
    return;
  }
  KEEL_CHECK(offset % alignment_ == 0, "unaligned write of the log at byte", offset, alignment_);
  for (int i = 0; i < count; ++i) {
    KEEL_ASSERT(parts[i].iov_len % alignment_ == 0, "unaligned part of a write of the log, bytes",
                parts[i].iov_len, alignment_);
  }
}

Status LogDevice::fail(const Error& error) {
  MutexLock lock(mutex_);
  if (!failed_.load(std::memory_order_relaxed)) {
    error_ = error;
    failed_.store(true, std::memory_order_release);
  }
  return error_;
}

Status LogDevice::status() const {
  if (!failed_.load(std::memory_order_acquire)) {
    return {};
  }
  MutexLock lock(mutex_);
  return error_;
}

}  // namespace keel
