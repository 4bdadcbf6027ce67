#include "stable_sequence.h"

#include "keel/base/check.h"

namespace keel {

Status StableSequence::wait(Sequence sequence) {
  if (now() >= sequence) {
    return {};
  }
  MutexLock lock(mutex_);
  Waiter self{sequence, {}, waiters_};
  waiters_ = &self;
  while (now() < sequence && !failed_.load(std::memory_order_relaxed)) {
    self.condition.wait(mutex_);
  }
  Waiter** link = &waiters_;
  while (*link != &self) {
    link = &(*link)->next;
  }
  *link = self.next;
  // What became stable before the failure is stable.
  return now() >= sequence ? Status{} : Status{error_};
}

void StableSequence::advance(Sequence sequence) {
  MutexLock lock(mutex_);
  KEEL_CHECK(sequence >= now(), "the stable sequence moves forward", sequence.value(),
             now().value());
  stable_.store(sequence.value(), std::memory_order_release);
  wake(sequence);
}

void StableSequence::fail(const Error& error) {
  MutexLock lock(mutex_);
  if (!failed_.load(std::memory_order_relaxed)) {
    error_ = error;
    failed_.store(true, std::memory_order_release);
  }
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) {
    waiter->condition.notify_one();
  }
}

Status StableSequence::status() const {
  if (!failed()) {
    return {};
  }
  MutexLock lock(mutex_);
  return error_;
}

void StableSequence::wake(Sequence up_to) {
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) {
    if (waiter->sequence <= up_to) {
      waiter->condition.notify_one();
    }
  }
}

}  // namespace keel
