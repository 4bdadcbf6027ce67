// LogSpace: reservations of log space and of memory for snapshots, granted together in the order in
// which they were asked for.
//
//   log size       >= (head - tail) + granted + held + what is set aside
//   max_checkpoint >= granted
//   memory limit   >= memory granted and in use
//
// I1 Every open transaction has been granted the worst case of what it may add to the context, so
//    commit never waits, and a context always fits in one checkpoint. What a commit used stays
//    granted until the context closes; the rest comes back.
// I2 "tail" is the one that is stable in the state slots: space is reused only after that.
// I3 What is set aside is only for logging again what holds the tail: a fixed least, or what the
//    neediest bucket of the AIL needs for that (a checkpoint, or several that share one). That much
//    is free when one becomes the oldest, unless what lives, and a grant that came before the need
//    was known, leave less. It need not fit in one checkpoint: what does not is logged in parts,
//    whose units the need counts. So whether the oldest can be logged again is a question of free
//    log space alone, never of max_checkpoint; and what was begun can be ended, for each part takes
//    no more than it was counted for.
// I4 A waiter that nothing can help any more gets kLogFull; until then it has asked for help, and a
//    pass has looked at what it lacks. Whoever makes room outside says so before it is had.
// I5 While somebody waits in unhold(), begin() is granted nothing new: what is held goes first.
// Locks: one (kJournalSpace). Who waits for a grant sleeps on a condition of his own and is granted
//    it in turn, by who makes room; all in unhold() sleep on one, and look again whenever something
//    granted came back.
// Source: grant heads (XFS); the difference: one queue for both resources, and no rounding.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "again_needs.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

struct Reservation {
  std::uint64_t log_bytes = 0;
  std::uint64_t memory_bytes = 0;

  Reservation& operator+=(const Reservation& other) {
    log_bytes += other.log_bytes;
    memory_bytes += other.memory_bytes;
    return *this;
  }
  Reservation& operator-=(const Reservation& other) {
    log_bytes -= other.log_bytes;
    memory_bytes -= other.memory_bytes;
    return *this;
  }
  [[nodiscard]] bool covers(const Reservation& other) const {
    return log_bytes >= other.log_bytes && memory_bytes >= other.memory_bytes;
  }
};

class LogSpace {
 public:
  struct Limits {
    std::uint64_t log_bytes;
    std::uint64_t max_checkpoint_bytes;
    std::uint64_t set_aside_bytes;  // at least
    std::uint64_t memory_bytes;
  };
  // What a waiter may ask for, without the lock but for the last.
  struct Helpers {
    std::function<void()> drain;  // give back what is granted and not in use
    std::function<void()> ask;    // push the context, and then make a pass
    // The context, if there is something in it to push; else none. A look, no lock.
    std::function<Sequence()> open_context;
  };
  LogSpace(Limits limits, Lsn tail, Lsn head, Helpers helpers);

  // Errors: kTooLarge if it could never be granted.
  [[nodiscard]] Status check(const Reservation& wanted) const;
  // Grants it if that needs no waiting. False also if somebody waits already.
  [[nodiscard]] bool try_reserve(const Reservation& wanted) KEEL_EXCLUDES(mutex_);
  // Blocks until it is granted.
  // Errors: those of check(), kLogFull (value: LSN that holds the tail), what fail() was given.
  [[nodiscard]] Status reserve(const Reservation& wanted) KEEL_EXCLUDES(mutex_);
  // As try_reserve(), out of what is set aside, past all who wait.
  [[nodiscard]] bool try_reserve_again(const Reservation& wanted) KEEL_EXCLUDES(mutex_);
  struct AgainGrant {
    std::uint64_t log_bytes = 0;
    std::uint64_t room_bytes = 0;  // these, and what is there for further parts
    bool is_last_word = true;      // nothing else was granted that could come back
  };
  // Log space out of what is set aside, past all who wait, as much as there is of what the oldest
  // checkpoint may need. Nothing if that is no more than a checkpoint's unit, or if it would have
  // to be done in parts only because others have grants, and units for the parts are lacking.
  [[nodiscard]] AgainGrant grant_again(std::uint64_t unit) KEEL_EXCLUDES(mutex_);
  void give_back(const Reservation& unused) KEEL_EXCLUDES(mutex_);
  // Somebody waits, or nothing is granted any more: nothing that is granted may be kept unused, or
  // be granted anew. Without the lock; whoever sees it too late has its credit drained.
  [[nodiscard]] bool contended() const { return contended_.load(std::memory_order_seq_cst); }

  // Moves what is granted to what is held for a done that must always be possible: log space, and
  // memory, which stays granted.
  void hold(const Reservation& room) KEEL_EXCLUDES(mutex_);
  // And back, past all who wait for a grant: the log has room for it. Blocks while the context and
  // the open transactions, as one checkpoint, leave none. Errors: what fail() was given.
  [[nodiscard]] Status unhold(const Reservation& room) KEEL_EXCLUDES(mutex_);

  // A context that was granted `granted_bytes` became a checkpoint of `bytes`; returns its start.
  [[nodiscard]] Lsn close_context(std::uint64_t granted_bytes, std::uint64_t bytes)
      KEEL_EXCLUDES(mutex_);
  // What it takes to log its items without a home again; after close_context(), in the same order.
  // `joined`: they hold the tail where those of the checkpoint before it do.
  void needs_again(Lsn start, std::uint64_t bytes, bool joined) KEEL_EXCLUDES(mutex_);
  // Of a done that was committed out of another grant, or will never be.
  void drop_held(const Reservation& room) KEEL_EXCLUDES(mutex_);
  // What an intent that was recovered held before. The log has room for it: it had then.
  void adopt_held(const Reservation& room) KEEL_EXCLUDES(mutex_);
  // The context was aborted: it never becomes a checkpoint.
  void drop_context(std::uint64_t granted_bytes) KEEL_EXCLUDES(mutex_);
  // A checkpoint that close_context() made is stable or aborted. If somebody waits, the caller sees
  // to a pass of the upkeep.
  void checkpoint_done() KEEL_EXCLUDES(mutex_);
  // Snapshots were freed.
  void free_memory(std::uint64_t bytes) KEEL_EXCLUDES(mutex_);
  // The stable tail moved.
  void tail_moved(Lsn tail) KEEL_EXCLUDES(mutex_);

  // A pass of the upkeep will come: no waiter calls the log full before it.
  void pass_asked() KEEL_EXCLUDES(mutex_);
  void pass_begins() KEEL_EXCLUDES(mutex_);
  // `hope`: something that is under way outside may still free space.
  void pass_ended(bool hope) KEEL_EXCLUDES(mutex_);
  // The first waiter needs the tail to move: no push alone can make room for it.
  [[nodiscard]] bool tail_wanted() const KEEL_EXCLUDES(mutex_);
  // How far behind the head the tail may be for the first waiter to get through; if nobody waits,
  // all of the log.
  [[nodiscard]] std::uint64_t most_behind() const KEEL_EXCLUDES(mutex_);
  // The first waiter lacks memory.
  [[nodiscard]] bool memory_wanted() const KEEL_EXCLUDES(mutex_);

  // Every waiter and later reserve() gets the first error given here.
  void fail(const Error& error) KEEL_EXCLUDES(mutex_);

  struct Sums {
    Reservation granted;  // log: context, open transactions and credits; memory: those and in use
    Reservation held;
    std::uint64_t set_aside_bytes = 0;
    Bytes used{};  // tail to head
    Lsn tail{};
    unsigned in_flight = 0;
    std::uint64_t grants = 0;  // to those who had to wait, so far
    std::uint64_t passes = 0;  // begun
    bool in_pass = false;
  };
  [[nodiscard]] Sums sums() const KEEL_EXCLUDES(mutex_);
  // Since when the first waiter has waited, and for what; since_ns 0 if nobody does.
  struct Longest {
    std::uint64_t since_ns = 0;
    Reservation wanted;
  };
  [[nodiscard]] Longest longest() const KEEL_EXCLUDES(mutex_);
  [[nodiscard]] const Limits& limits() const { return limits_; }

 private:
  struct Waiter {
    Reservation wanted;
    std::uint64_t since_ns = 0;
    CondVar condition;
    bool granted = false;  // and not in the queue any more
    Waiter* next = nullptr;
  };

  [[nodiscard]] std::uint64_t set_aside(std::uint64_t gathering) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool fits(const Reservation& wanted, bool again) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] std::uint64_t gathering_with(const Reservation& wanted) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool lacks_log(const Reservation& wanted) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool hopeless() const KEEL_REQUIRES(mutex_);
  [[nodiscard]] Status wait_for_room(Waiter& self) KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool fits_checkpoint(std::uint64_t log_bytes) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] Status wait_for_checkpoint(std::uint64_t log_bytes) KEEL_REQUIRES(mutex_);
  void update_contended() KEEL_REQUIRES(mutex_);
  void granted_less() KEEL_REQUIRES(mutex_);
  [[nodiscard]] bool can_be_served(const Waiter& first) const KEEL_REQUIRES(mutex_);
  void serve_waiters() KEEL_REQUIRES(mutex_);
  void enqueue(Waiter& waiter) KEEL_REQUIRES(mutex_);
  void dequeue(Waiter& waiter) KEEL_REQUIRES(mutex_);

  const Limits limits_;
  const Helpers helpers_;
  mutable Mutex mutex_{LockRank::kJournalSpace};
  std::atomic<bool> contended_{false};
  Lsn tail_ KEEL_GUARDED_BY(mutex_);
  Lsn head_ KEEL_GUARDED_BY(mutex_);
  Reservation granted_ KEEL_GUARDED_BY(mutex_){};
  Reservation held_ KEEL_GUARDED_BY(mutex_);
  AgainNeeds needs_ KEEL_GUARDED_BY(mutex_);
  unsigned in_flight_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t grants_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t passes_begun_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t passes_ended_ KEEL_GUARDED_BY(mutex_) = 0;
  // Of unhold(): how many wait, and how often something that was granted came back or was used.
  unsigned unholding_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t granted_changes_ KEEL_GUARDED_BY(mutex_) = 0;
  CondVar granted_changed_;
  bool pass_asked_ KEEL_GUARDED_BY(mutex_) = false;  // and not yet begun
  bool hope_ KEEL_GUARDED_BY(mutex_) = false;        // of the last pass
  bool failed_ KEEL_GUARDED_BY(mutex_) = false;
  Error error_ KEEL_GUARDED_BY(mutex_){};
  Waiter* first_waiter_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Waiter* last_waiter_ KEEL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace keel
