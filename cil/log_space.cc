#include "log_space.h"

#include <utility>

#include "keel/base/check.h"

namespace keel {

LogSpace::LogSpace(Limits limits, Lsn tail, Lsn head, std::function<void()> nudge)
    : limits_(limits), nudge_(std::move(nudge)), tail_(tail), head_(head) {}

bool LogSpace::fits(std::uint64_t bytes) const {
  const std::uint64_t gathering = context_bytes_ + outstanding_ + bytes;
  return gathering <= limits_.max_checkpoint_bytes &&
         (head_ - tail_).value() + gathering <= limits_.log_bytes;
}

// True if nothing that is under way can make room: no context to push, no reservation to come back,
// a whole pass of the push thread that moved the tail as far as it goes, and no other to come.
bool LogSpace::hopeless(std::uint64_t passes_seen) const {
  return context_bytes_ == 0 && outstanding_ == 0 && passes_ended_ > passes_seen &&
         passes_ended_ == passes_begun_ && !pass_asked_;
}

Status LogSpace::reserve(std::uint64_t bytes) {
  if (bytes > limits_.max_checkpoint_bytes) {
    return Error{Errc::kTooLarge, 0, "a transaction's worst case exceeds max_checkpoint, bytes",
                 limits_.max_checkpoint_bytes};
  }
  MutexLock lock(mutex_);
  if (first_waiter_ == nullptr && !failed_ && fits(bytes)) {
    outstanding_ += bytes;
    return {};
  }
  Waiter self;
  enqueue(self);
  const Status status = wait_for_room(self, bytes);
  dequeue(self);
  wake_first();
  return status;
}

Status LogSpace::wait_for_room(Waiter& self, std::uint64_t bytes) {
  std::uint64_t passes_seen = passes_begun_;
  bool asked = false;
  for (;;) {
    if (failed_) {
      return error_;
    }
    if (first_waiter_ == &self) {
      if (fits(bytes)) {
        outstanding_ += bytes;
        return {};
      }
      if (hopeless(passes_seen)) {
        return Error{Errc::kLogFull, 0, "items not yet released hold the tail at LSN",
                     tail_.value()};
      }
      // A commit has put something into the context since the pass that was asked for: ask again.
      // Not for an empty context: then the waiter waits for the open reservations.
      asked = asked && !(passes_ended_ > passes_seen && context_bytes_ > 0);
      if (!asked) {
        asked = true;
        passes_seen = passes_begun_;
        mutex_.unlock();
        nudge_();
        mutex_.lock();
        continue;
      }
    }
    self.condition.wait(mutex_);
  }
}

void LogSpace::give_back(std::uint64_t bytes) {
  MutexLock lock(mutex_);
  KEEL_CHECK(outstanding_ >= bytes, "more given back than reserved", outstanding_, bytes);
  outstanding_ -= bytes;
  wake_first();
}

void LogSpace::committed(std::uint64_t reserved_bytes, std::uint64_t context_bytes) {
  MutexLock lock(mutex_);
  KEEL_CHECK(outstanding_ >= reserved_bytes, "commit without a reservation", outstanding_,
             reserved_bytes);
  outstanding_ -= reserved_bytes;
  context_bytes_ = context_bytes;
  KEEL_CHECK(context_bytes_ + outstanding_ <= limits_.max_checkpoint_bytes &&
                 (head_ - tail_).value() + context_bytes_ + outstanding_ <= limits_.log_bytes,
             "a commit took more than was reserved", context_bytes_, outstanding_);
  wake_first();
}

Lsn LogSpace::close_context(std::uint64_t bytes) {
  MutexLock lock(mutex_);
  KEEL_CHECK(bytes == context_bytes_, "extent and reservation disagree", bytes, context_bytes_);
  const Lsn start = head_;
  head_ += Bytes(bytes);
  context_bytes_ = 0;
  wake_first();
  return start;
}

void LogSpace::drop_context() {
  MutexLock lock(mutex_);
  context_bytes_ = 0;
}

void LogSpace::tail_moved(Lsn tail) {
  MutexLock lock(mutex_);
  KEEL_CHECK(tail >= tail_ && tail <= head_, "the tail moves forward, up to the head", tail.value(),
             tail_.value(), head_.value());
  tail_ = tail;
  wake_first();
}

void LogSpace::pass_asked() {
  MutexLock lock(mutex_);
  pass_asked_ = true;
}

void LogSpace::pass_begins() {
  MutexLock lock(mutex_);
  pass_asked_ = false;
  ++passes_begun_;
}

void LogSpace::pass_ended() {
  MutexLock lock(mutex_);
  passes_ended_ = passes_begun_;
  wake_first();
}

bool LogSpace::wanted() const {
  MutexLock lock(mutex_);
  return first_waiter_ != nullptr;
}

void LogSpace::fail(const Error& error) {
  MutexLock lock(mutex_);
  error_ = failed_ ? error_ : error;
  failed_ = true;
  wake_first();
}

void LogSpace::audit(std::uint64_t context_bytes) const {
  MutexLock lock(mutex_);
  KEEL_CHECK(context_bytes_ == context_bytes, "the context's share of the log", context_bytes_,
             context_bytes);
  KEEL_CHECK(tail_ <= head_, "tail beyond the head", tail_.value(), head_.value());
  KEEL_CHECK(context_bytes_ + outstanding_ <= limits_.max_checkpoint_bytes,
             "more is promised than fits a checkpoint", context_bytes_, outstanding_);
  // A recovered log may be fuller than that, until its first checkpoint is asked for.
  KEEL_CHECK(context_bytes_ + outstanding_ == 0 ||
                 (head_ - tail_).value() + context_bytes_ + outstanding_ <= limits_.log_bytes,
             "more is promised than the log holds", context_bytes_, outstanding_);
}

Bytes LogSpace::used() const {
  MutexLock lock(mutex_);
  return Bytes((head_ - tail_).value() + context_bytes_);
}

Bytes LogSpace::outstanding() const {
  MutexLock lock(mutex_);
  return Bytes(outstanding_);
}

void LogSpace::wake_first() {
  if (first_waiter_ != nullptr) {
    first_waiter_->condition.notify_one();
  }
}

void LogSpace::enqueue(Waiter& waiter) {
  (last_waiter_ != nullptr ? last_waiter_->next : first_waiter_) = &waiter;
  last_waiter_ = &waiter;
}

void LogSpace::dequeue(Waiter& waiter) {
  Waiter* before = nullptr;
  for (Waiter* at = first_waiter_; at != &waiter; at = at->next) {
    before = at;
  }
  (before != nullptr ? before->next : first_waiter_) = waiter.next;
  last_waiter_ = last_waiter_ == &waiter ? before : last_waiter_;
}

}  // namespace keel
