#include "stable_sequence.h"

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {
namespace {

constexpr std::uint32_t word(StableSequence::Wake wake) { return static_cast<std::uint32_t>(wake); }

}  // namespace

std::uint64_t deadline_of(std::uint64_t timeout_ns) {
  if (timeout_ns == Parker::kForever) {
    return timeout_ns;
  }
  const std::uint64_t now_ns = os().monotonic_ns();
  return timeout_ns > Parker::kForever - 1 - now_ns ? Parker::kForever : now_ns + timeout_ns;
}

void StableSequence::enter(Waiter& waiter) {
  waiter.since_ns = os().monotonic_ns();
  MutexLock lock(mutex_);
  if (now() >= waiter.sequence) {
    (void)waiter.parker.take(word(Wake::kWaiting), word(Wake::kStable));
  } else if (failed()) {
    (void)waiter.parker.take(word(Wake::kWaiting), word(Wake::kFailed));
  } else {
    link(waiter);
  }
}

StableSequence::Wake StableSequence::wait(Waiter& waiter, std::uint64_t deadline_ns) {
  for (;;) {
    const auto wake = static_cast<Wake>(waiter.parker.value());
    if (wake == Wake::kCalledUpon) {
      if (waiter.parker.take(word(wake), word(Wake::kWaiting))) {
        return wake;
      }
    } else if (wake != Wake::kWaiting) {
      return wake;  // Whoever said so has taken the waiter off the list.
    } else if (!waiter.parker.park_while(word(Wake::kWaiting), deadline_ns)) {
      MutexLock lock(mutex_);
      // If it is off the list, its wake is on the way.
      if (waiter.linked && waiter.parker.take(word(Wake::kWaiting), word(Wake::kTimeout))) {
        unlink(waiter);
        return Wake::kTimeout;
      }
      deadline_ns = Parker::kForever;
    }
  }
}

bool StableSequence::call_upon(Sequence at_least) {
  MutexLock lock(mutex_);
  for (Waiter* waiter = first_; waiter != nullptr; waiter = waiter->next) {
    if (!waiter->looks_on && waiter->sequence >= at_least &&
        waiter->parker.replace(word(Wake::kWaiting), word(Wake::kCalledUpon))) {
      return true;
    }
  }
  return false;
}

void StableSequence::advance(Sequence sequence) {
  Waiter* woken = nullptr;
  {
    MutexLock lock(mutex_);
    KEEL_CHECK(sequence >= now(), "the stable sequence moves forward", sequence.value(),
               now().value());
    stable_.store(sequence.value(), std::memory_order_release);
    woken = take(sequence);
  }
  wake_all(woken, Wake::kStable);
}

void StableSequence::fail(const Error& error) {
  Waiter* woken = nullptr;
  {
    MutexLock lock(mutex_);
    if (!failed_.load(std::memory_order_relaxed)) {
      error_ = error;
      failed_.store(true, std::memory_order_release);
    }
    woken = take(Sequence(UINT64_MAX));
  }
  wake_all(woken, Wake::kFailed);
}

Status StableSequence::status() const {
  if (!failed()) {
    return {};
  }
  MutexLock lock(mutex_);
  return error_;
}

StableSequence::Longest StableSequence::longest() const {
  MutexLock lock(mutex_);
  const Waiter* waiter = first_;
  while (waiter != nullptr && waiter->looks_on) {
    waiter = waiter->next;
  }
  return waiter == nullptr ? Longest{} : Longest{waiter->sequence, waiter->since_ns};
}

void StableSequence::link(Waiter& waiter) {
  waiter.previous = last_;
  waiter.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &waiter;
  last_ = &waiter;
  waiter.linked = true;
}

void StableSequence::unlink(Waiter& waiter) {
  (waiter.previous != nullptr ? waiter.previous->next : first_) = waiter.next;
  (waiter.next != nullptr ? waiter.next->previous : last_) = waiter.previous;
  waiter.linked = false;
}

// Takes those who wait for no more than this off the list, chained in the order in which they came.
StableSequence::Waiter* StableSequence::take(Sequence up_to) {
  Waiter* taken = nullptr;
  Waiter** end = &taken;
  for (Waiter* waiter = first_; waiter != nullptr;) {
    Waiter* following = waiter->next;
    if (waiter->sequence <= up_to) {
      unlink(*waiter);
      waiter->next = nullptr;
      *end = waiter;
      end = &waiter->next;
    }
    waiter = following;
  }
  return taken;
}

void StableSequence::wake_all(Waiter* first, Wake why) {
  while (first != nullptr) {
    Waiter* following = first->next;  // The waiter is gone as soon as it is told.
    first->parker.set(word(why));
    first = following;
  }
}

}  // namespace keel
