#include "stable_sequence.h"

#include <tuple>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {

std::uint64_t deadline_of(std::uint64_t timeout_ns) {
  if (timeout_ns == WaitWord::kForever) {
    return timeout_ns;
  }
  const std::uint64_t now_ns = os().monotonic_ns();
  return timeout_ns > WaitWord::kForever - 1 - now_ns ? WaitWord::kForever : now_ns + timeout_ns;
}

void StableSequence::enter(Waiter& waiter) {
  waiter.since_ns = os().monotonic_ns();
  MutexLock lock(mutex_);
  if (now() >= waiter.sequence) {
    waiter.wake.store(Wake::kStable, std::memory_order_relaxed);  // its own thread's
  } else if (failed()) {
    waiter.wake.store(Wake::kFailed, std::memory_order_relaxed);
  } else {
    waiter.bit = next_bit_;
    next_bit_ = std::rotl(next_bit_, 1);
    link(waiter);
  }
}

StableSequence::Wake StableSequence::wait(Waiter& waiter, std::uint64_t deadline_ns) {
  WaitWord& word = word_of(waiter.sequence);
  for (;;) {
    const std::uint32_t seen = word.value();
    // Acquire pairs with wake_all(): what was done before the wake is seen.
    Wake wake = waiter.wake.load(std::memory_order_acquire);
    if (wake == Wake::kCalledUpon) {
      if (waiter.wake.compare_exchange_strong(wake, Wake::kWaiting, std::memory_order_acq_rel)) {
        return Wake::kCalledUpon;
      }
    } else if (wake != Wake::kWaiting) {
      return wake;  // Whoever said so has taken the waiter off the list.
    } else if (!word.wait(seen, waiter.bit, deadline_ns)) {
      MutexLock lock(mutex_);
      // If it is off the list, its wake is on the way; if it was called upon, that comes first.
      if (waiter.linked && waiter.wake.load(std::memory_order_relaxed) == Wake::kWaiting) {
        unlink(waiter);
        return Wake::kTimeout;
      }
    }
  }
}

bool StableSequence::call_upon(Sequence at_least) {
  Sequence sequence{};
  std::uint32_t bit = 0;
  {
    MutexLock lock(mutex_);
    for (Waiter* waiter = first_; waiter != nullptr && bit == 0; waiter = waiter->next) {
      Wake expected = Wake::kWaiting;
      if (!waiter->looks_on && waiter->sequence >= at_least &&
          waiter->wake.compare_exchange_strong(expected, Wake::kCalledUpon,
                                               std::memory_order_acq_rel)) {
        sequence = waiter->sequence;
        bit = waiter->bit;
      }
    }
  }
  if (bit != 0) {
    word_of(sequence).wake(bit);
  }
  return bit != 0;
}

void StableSequence::call_upon(Waiter& waiter) {
  Wake expected = Wake::kWaiting;
  if (waiter.wake.compare_exchange_strong(expected, Wake::kCalledUpon, std::memory_order_acq_rel)) {
    word_of(waiter.sequence).wake(WaitWord::kEverybody);
  }
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
  static_assert(sizeof(unsigned) * 8 > std::tuple_size_v<decltype(words_)>);
  unsigned words = 0;
  while (first != nullptr) {
    Waiter* following = first->next;  // The waiter may be gone as soon as it is told.
    words |= 1U << (first->sequence.value() % words_.size());
    // Release pairs with wait().
    first->wake.store(why, std::memory_order_release);
    first = following;
  }
  for (unsigned i = 0; i < words_.size(); ++i) {
    if ((words >> i & 1U) != 0) {
      words_[i].word.wake(WaitWord::kEverybody);
    }
  }
}

}  // namespace keel
