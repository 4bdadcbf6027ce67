// StableSequence: the highest sequence that is stable, who waits for one, and the first error.
//
// I1 Only moves forward. Waiters for one sequence share one write. Those whose wait is over are
//    woken together, and nobody else; none of them takes a lock to wake.
// I2 The first error is kept for good; every waiter and later call gets it.
// I3 A waiter may be called upon to push its own context; if it does not, whoever finishes a push
//    calls upon the next.
// I4 One that only looks on (a follower, a callback) is never called upon and is not counted among
//    those who wait in a force.
// Locks: one (kJournalStable), for the list.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel/base/wait_word.h"

namespace keel {

// The moment of the monotonic clock at which `timeout_ns` from now have passed; UINT64_MAX: never.
[[nodiscard]] std::uint64_t deadline_of(std::uint64_t timeout_ns);

class StableSequence {
 public:
  enum class Wake : std::uint32_t { kWaiting, kStable, kFailed, kCalledUpon, kTimeout };

  // On its thread's stack.
  struct Waiter {
    Sequence sequence{};
    std::uint64_t since_ns = 0;
    std::atomic<Wake> wake{Wake::kWaiting};
    std::uint32_t bit = 1;  // by which it can be woken alone, or almost
    bool looks_on = false;  // it never pushes: nobody calls upon it to
    Waiter* next = nullptr;
    Waiter* previous = nullptr;
    bool linked = false;
  };

  explicit StableSequence(Sequence start) : stable_(start.value()) {}

  // Without a lock, so it may be a moment old.
  [[nodiscard]] Sequence now() const {
    // Acquire pairs with advance(): who sees the sequence sees what was done before it.
    return Sequence(stable_.load(std::memory_order_acquire));
  }

  // Joins those who wait for waiter.sequence; wait() until it says anything but kCalledUpon.
  void enter(Waiter& waiter) KEEL_EXCLUDES(mutex_);
  // Blocks until the sequence is stable (kStable), the journal failed, `deadline_ns` of the
  // monotonic clock passed (WaitWord::kForever: never), or the waiter is called upon.
  [[nodiscard]] Wake wait(Waiter& waiter, std::uint64_t deadline_ns) KEEL_EXCLUDES(mutex_);
  // Calls upon the first waiter whose sequence is at least this one; false if there is none.
  bool call_upon(Sequence at_least) KEEL_EXCLUDES(mutex_);
  // Calls upon this one, which may not have entered yet.
  void call_upon(Waiter& waiter);

  void advance(Sequence sequence) KEEL_EXCLUDES(mutex_);
  // Keeps the first error given; wakes everybody.
  void fail(const Error& error) KEEL_EXCLUDES(mutex_);

  [[nodiscard]] bool failed() const {
    // Acquire pairs with fail(): who sees it finds the error.
    return failed_.load(std::memory_order_acquire);
  }
  // Ok until fail().
  [[nodiscard]] Status status() const KEEL_EXCLUDES(mutex_);

  // The waiter in a force who has waited longest: its sequence and since when; 0 if nobody waits.
  struct Longest {
    Sequence sequence{};
    std::uint64_t since_ns = 0;
  };
  [[nodiscard]] Longest longest() const KEEL_EXCLUDES(mutex_);

 private:
  void link(Waiter& waiter) KEEL_REQUIRES(mutex_);
  void unlink(Waiter& waiter) KEEL_REQUIRES(mutex_);
  [[nodiscard]] Waiter* take(Sequence up_to) KEEL_REQUIRES(mutex_);
  void wake_all(Waiter* first, Wake why);
  [[nodiscard]] WaitWord& word_of(Sequence sequence) {
    return words_[sequence.value() % words_.size()].word;
  }

  // Waiters of one sequence, and of some that are far away, sleep on one word.
  struct alignas(64) PaddedWord {
    WaitWord word;
  };
  std::array<PaddedWord, 8> words_;

  mutable Mutex mutex_{LockRank::kJournalStable};
  std::atomic<std::uint64_t> stable_;
  std::atomic<bool> failed_{false};
  Error error_ KEEL_GUARDED_BY(mutex_){};
  Waiter* first_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Waiter* last_ KEEL_GUARDED_BY(mutex_) = nullptr;
  std::uint32_t next_bit_ KEEL_GUARDED_BY(mutex_) = 1;
};

}  // namespace keel
