#include "log/write_progress.h"

#include <cerrno>

namespace keel {

Status WriteProgress::advance(ssize_t result, std::uint32_t alignment) {
  if (result == -EINTR) {
    return {};
  }
  if (result < 0) {
    return system_error(static_cast<int>(-result), "write the log at byte", offset_);
  }
  std::size_t wanted = 0;
  for (int i = 0; i < count(); ++i) {
    wanted += parts_[i].iov_len;
  }
  const auto moved = static_cast<std::size_t>(result);
  if (moved > wanted || (moved < wanted && (was_short_ || moved % alignment != 0))) {
    return Error{Errc::kIo, 0, "short write of the log at byte", offset_ + moved};
  }
  was_short_ = moved < wanted;
  consume(moved);
  offset_ += moved;
  return {};
}

// Drops `bytes` from the front of the parts, and parts without bytes after them.
void WriteProgress::consume(std::size_t bytes) {
  while (left_ > 0 && bytes >= parts_->iov_len) {
    bytes -= parts_->iov_len;
    ++parts_;
    --left_;
  }
  if (left_ > 0) {
    parts_->iov_base = static_cast<std::byte*>(parts_->iov_base) + bytes;
    parts_->iov_len -= bytes;
  }
}

}  // namespace keel
