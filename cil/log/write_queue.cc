#include "log/write_queue.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <new>

#include "keel/base/check.h"

namespace keel {
namespace {

// Between two looks at a ring that cannot be waited for.
constexpr std::uint64_t kLookNs = 1'000'000;

// The kernel had no memory or no room to take the write; the write itself was not looked at.
bool was_not_tried(int error) { return error == -EAGAIN || error == -EBUSY || error == -ENOMEM; }

Error no_ring_error(int error) {
  // A sandbox says EPERM or ENOSYS, a kernel whose administrator forbids it EPERM.
  return error == -ENOSYS || error == -EINVAL || error == -EOPNOTSUPP
             ? Error{Errc::kUnsupported, -error, "this kernel has no io_uring", 0}
             : system_error(-error, "set up io_uring");
}

}  // namespace

Result<std::unique_ptr<WriteQueue>> WriteQueue::make(LogDevice& device, IoMode mode,
                                                     std::span<const struct iovec> staging,
                                                     unsigned depth) {
  if (depth == 0 || depth > kMaxDepth) {
    return Error{Errc::kInvalidArgument, 0, "writes at a time: from 1 to", kMaxDepth};
  }
  if (staging.size() > kMaxStaging) {
    return Error{Errc::kInvalidArgument, 0, "pieces of staging: at most", kMaxStaging};
  }
  std::unique_ptr<WriteQueue> queue(new (std::nothrow) WriteQueue(device, depth));
  if (queue == nullptr) {
    return Error{Errc::kNoMemory, 0, "make a write queue", 0};
  }
  if (auto status = queue->check_owner(); !status) {
    return status.error();
  }
  if (mode != IoMode::kSync) {
    const Status opened = queue->open_ring(staging);
    // For kAuto any reason is one to do without: writing does not depend on it.
    if (!opened && mode == IoMode::kUring) {
      return opened.error();
    }
  }
  return queue;
}

Status WriteQueue::open_ring(std::span<const struct iovec> staging) {
  const int registered = os().ring_create(device_.descriptor(), staging.data(),
                                          static_cast<int>(staging.size()), depth_, &ring_);
  if (registered < 0) {
    ring_ = nullptr;
    return no_ring_error(registered);
  }
  staging_count_ = static_cast<std::size_t>(registered);
  std::copy_n(staging.begin(), staging_count_, staging_.begin());
  return {};
}

WriteQueue::~WriteQueue() {
  if (ring_ == nullptr) {
    return;
  }
  const bool inherited = !device_.owned_by_this_process();
  if (!inherited) {
    (void)wait_all();
  }
  os().ring_destroy(ring_, inherited);
}

Status WriteQueue::check_owner() const {
  return device_.owned_by_this_process()
             ? Status{}
             : Error{Errc::kForked, 0, "a write to the log of a parent process", 0};
}

Status WriteQueue::start(unsigned slot, std::uint64_t offset, struct iovec* parts, int count) {
  KEEL_CHECK(slot < depth_ && !slots_[slot].under_way, "no idle slot of that number", slot, depth_);
  if (auto status = check_owner(); !status) {
    return status;
  }
  if (auto status = device_.status(); !status) {
    return status;
  }
  device_.check_aligned(offset, parts, count);
  slots_[slot].progress = WriteProgress(offset, parts, count);
  if (slots_[slot].progress.done()) {
    return {};
  }
  return ring_ == nullptr ? write_here(slots_[slot].progress) : submit(slot);
}

Status WriteQueue::write_here(WriteProgress& progress) {
  while (!progress.done() && device_.status().ok()) {
    count_call();
    const ssize_t wrote = os().pwritev2(device_.descriptor(), progress.parts(), progress.count(),
                                        progress.offset(), 0);
    if (auto status = progress.advance(wrote, device_.alignment()); !status) {
      return device_.fail(status.error());
    }
  }
  return device_.status();
}

Status WriteQueue::submit(unsigned slot) {
  WriteProgress& progress = slots_[slot].progress;
  const RingWrite write{progress.parts(), progress.count(), staging_of(progress), progress.offset(),
                        slot};
  count_call();
  const int error = os().ring_submit(ring_, write);
  if (was_not_tried(error)) {
    return write_here(progress);
  }
  if (error < 0) {
    return device_.fail(system_error(-error, "start a write of the log at byte", write.offset));
  }
  slots_[slot].under_way = true;
  ++under_way_;
  return {};
}

// Index of the registered piece that holds the write; -1 if there is none.
int WriteQueue::staging_of(const WriteProgress& progress) const {
  const struct iovec& part = *progress.parts();
  if (progress.count() != 1 || part.iov_len > INT_MAX) {
    return -1;
  }
  const auto at = reinterpret_cast<std::uintptr_t>(part.iov_base);
  for (std::size_t i = 0; i < staging_count_; ++i) {
    const auto begin = reinterpret_cast<std::uintptr_t>(staging_[i].iov_base);
    if (at >= begin && part.iov_len <= staging_[i].iov_len &&
        at - begin <= staging_[i].iov_len - part.iov_len) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

Status WriteQueue::wait(unsigned slot) {
  KEEL_CHECK(slot < depth_, "no slot of that number", slot, depth_);
  if (auto status = check_owner(); !status) {
    return status;
  }
  while (slots_[slot].under_way) {
    take_completion();
  }
  return device_.status();
}

Status WriteQueue::wait_all() {
  if (auto status = check_owner(); !status) {
    return status;
  }
  while (under_way_ > 0) {
    take_completion();
  }
  return device_.status();
}

// Takes one completion, of any slot, and goes on with what it leaves to write.
void WriteQueue::take_completion() {
  const RingDone done = next_completion();
  const auto slot = static_cast<unsigned>(done.tag);
  KEEL_CHECK(slot < depth_ && slots_[slot].under_way, "completion of no write under way", done.tag);
  slots_[slot].under_way = false;
  --under_way_;
  WriteProgress& progress = slots_[slot].progress;
  if (done.result == -EAGAIN) {
    (void)write_here(progress);  // its failure is latched
  } else if (auto status = progress.advance(done.result, device_.alignment()); !status) {
    (void)device_.fail(status.error());
  } else if (!progress.done() && device_.status().ok()) {
    (void)submit(slot);  // its failure is latched; the slot is idle then
  }
}

// Does not return without one: the kernel may be using the caller's memory. A ring that cannot be
// waited for is an error of the device, and is looked at until its completions are there.
RingDone WriteQueue::next_completion() {
  RingDone done;
  bool ring_works = true;
  bool block = false;  // the first look costs no system call
  for (;;) {
    const int got = os().ring_wait(ring_, block, &done);
    if (got == 1) {
      return done;
    }
    if (got < 0 && got != -EINTR) {
      (void)device_.fail(system_error(-got, "wait for a write of the log"));
      ring_works = false;
    }
    block = ring_works;
    if (block) {
      count_call();
    } else {
      os().sleep_ns(kLookNs);
    }
  }
}

}  // namespace keel
