// StableSequence: the highest sequence that is stable, its waiters, and the journal's first error.
//
// I1 Only moves forward. Waiters for the same sequence share one write; each is woken alone.
// I2 The first error is kept for good; every waiter and later call gets it.
#pragma once

#include <atomic>
#include <cstdint>

#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class StableSequence {
 public:
  explicit StableSequence(Sequence start) : stable_(start.value()) {}

  // Without a lock, so it may be a moment old.
  [[nodiscard]] Sequence now() const {
    // Acquire pairs with advance(): who sees the sequence sees what was done before it.
    return Sequence(stable_.load(std::memory_order_acquire));
  }

  // Blocks until `sequence` is stable. Errors: what fail() was given.
  [[nodiscard]] Status wait(Sequence sequence) KEEL_EXCLUDES(mutex_);
  void advance(Sequence sequence) KEEL_EXCLUDES(mutex_);
  // Keeps the first error given; wakes everybody.
  void fail(const Error& error) KEEL_EXCLUDES(mutex_);

  [[nodiscard]] bool failed() const {
    // Acquire pairs with fail(): who sees it finds the error.
    return failed_.load(std::memory_order_acquire);
  }
  // Ok until fail().
  [[nodiscard]] Status status() const KEEL_EXCLUDES(mutex_);

 private:
  struct Waiter {
    Sequence sequence;
    CondVar condition;
    Waiter* next;
  };
  void wake(Sequence up_to) KEEL_REQUIRES(mutex_);

  mutable Mutex mutex_{LockRank::kJournalStable};
  std::atomic<std::uint64_t> stable_;
  std::atomic<bool> failed_{false};
  Error error_ KEEL_GUARDED_BY(mutex_){};
  Waiter* waiters_ KEEL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace keel
