// LogSpace: reservations of log space, granted in the order in which they were asked for.
//
//   log size >= (head - tail) + current context + outstanding reservations
//   max_checkpoint >= current context + outstanding reservations
//
// I1 Every open transaction has reserved the worst case of what it may add to the context, so
//    commit never waits and a context always fits in one checkpoint.
// I2 "tail" is the one that is stable in the state slots: space is reused only after that.
// I3 A waiter that nothing can help any more gets kLogFull; until then it has asked for a push.
// Locks: one (kJournalSpace). Waiters sleep each on its own condition and are woken in turn.
#pragma once

#include <cstdint>
#include <functional>

#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class LogSpace {
 public:
  struct Limits {
    std::uint64_t log_bytes;
    std::uint64_t max_checkpoint_bytes;
  };
  // `nudge` asks the push thread for a pass; it is called without the lock.
  LogSpace(Limits limits, Lsn tail, Lsn head, std::function<void()> nudge);

  // Blocks until `bytes` are granted.
  // Errors: kTooLarge, kLogFull (value: LSN that holds the tail), or what fail() was given.
  [[nodiscard]] Status reserve(std::uint64_t bytes) KEEL_EXCLUDES(mutex_);
  // Gives back a reservation that was not used.
  void give_back(std::uint64_t bytes) KEEL_EXCLUDES(mutex_);
  // A commit turned its reservation into part of the context, which now takes `context_bytes`.
  void committed(std::uint64_t reserved_bytes, std::uint64_t context_bytes) KEEL_EXCLUDES(mutex_);
  // The context became a checkpoint of `bytes`; returns its start. The next context is empty.
  [[nodiscard]] Lsn close_context(std::uint64_t bytes) KEEL_EXCLUDES(mutex_);
  // The context was aborted: it never becomes a checkpoint.
  void drop_context() KEEL_EXCLUDES(mutex_);
  // The stable tail moved.
  void tail_moved(Lsn tail) KEEL_EXCLUDES(mutex_);

  // A pass will come: no waiter calls the log full before it.
  void pass_asked() KEEL_EXCLUDES(mutex_);
  // The push thread begins / has ended a pass that pushes the context and moves the tail if it can.
  void pass_begins() KEEL_EXCLUDES(mutex_);
  void pass_ended() KEEL_EXCLUDES(mutex_);
  [[nodiscard]] bool wanted() const KEEL_EXCLUDES(mutex_);

  // Every waiter and later reserve() gets the first error given here.
  void fail(const Error& error) KEEL_EXCLUDES(mutex_);

  // Aborts if the sums are broken or the context's share is not `context_bytes`.
  void audit(std::uint64_t context_bytes) const KEEL_EXCLUDES(mutex_);

  [[nodiscard]] Bytes used() const KEEL_EXCLUDES(mutex_);
  [[nodiscard]] Bytes outstanding() const KEEL_EXCLUDES(mutex_);

 private:
  struct Waiter {
    CondVar condition;
    Waiter* next = nullptr;
  };

  [[nodiscard]] bool fits(std::uint64_t bytes) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool hopeless(std::uint64_t passes_seen) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] Status wait_for_room(Waiter& self, std::uint64_t bytes) KEEL_REQUIRES(mutex_);
  void wake_first() KEEL_REQUIRES(mutex_);
  void enqueue(Waiter& waiter) KEEL_REQUIRES(mutex_);
  void dequeue(Waiter& waiter) KEEL_REQUIRES(mutex_);

  const Limits limits_;
  const std::function<void()> nudge_;
  mutable Mutex mutex_{LockRank::kJournalSpace};
  Lsn tail_ KEEL_GUARDED_BY(mutex_);
  Lsn head_ KEEL_GUARDED_BY(mutex_);
  std::uint64_t context_bytes_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t outstanding_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t passes_begun_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t passes_ended_ KEEL_GUARDED_BY(mutex_) = 0;
  bool pass_asked_ KEEL_GUARDED_BY(mutex_) = false;  // and not yet begun
  bool failed_ KEEL_GUARDED_BY(mutex_) = false;
  Error error_ KEEL_GUARDED_BY(mutex_){};
  Waiter* first_waiter_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Waiter* last_waiter_ KEEL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace keel
