// Cil: the committed item list, which is what the current context holds, and the context lock.
//
// It is in parts, about one per CPU. Whoever holds one part's lock holds the context lock shared:
// commits on different CPUs touch no common cache line but the order counter. Whoever holds all
// parts' locks holds it exclusively: the switch to the next context.
//
// I1 The context is switched only with the lock exclusive, in time that does not depend on how many
//    items it holds: its lists are taken over whole. They are taken apart afterwards, before the
//    next switch (that context uses the same membership of the items again).
// I2 Sums are of differences, modulo 2^64: one part may go below zero, all together are exact.
// I3 An item is on one part's list of a context, once, however often and wherever it is committed.
// I4 The context's first insertion takes over the checkpoint's unit from its transaction.
// Locks: the parts' (kJournalContext and up); who wants all of them has kJournalSwitch first, and
// who comes meanwhile waits for that. Nothing allocates or waits for I/O under them.
// Source: per-CPU CIL and context lock (XFS); a part's lock instead of preemption turned off, since
// nothing can turn it off here. A part that is busy (its holder lost the CPU) is passed by.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "keel/base/mutex.h"
#include "keel/base/percpu.h"
#include "keel/base/units.h"
#include "keel/cil/log_item.h"
#include "log_space.h"
#include "log_vector.h"

namespace keel {

// What a context adds up to.
struct ContextSums {
  std::uint64_t items = 0;
  std::uint64_t packed_bytes = 0;  // lengths of the two streams
  std::uint64_t bulk_blocks = 0;
  std::uint64_t cost = 0;  // log space granted to it, unit included

  ContextSums& operator+=(const ContextSums& other) {
    items += other.items;
    packed_bytes += other.packed_bytes;
    bulk_blocks += other.bulk_blocks;
    cost += other.cost;
    return *this;
  }
  bool operator==(const ContextSums&) const = default;
};

// Counts of commits.
struct CommitCounts {
  std::uint64_t transactions = 0;
  std::uint64_t items = 0;
  std::uint64_t committed_bytes = 0;
  std::uint64_t coalesced_bytes = 0;

  CommitCounts& operator+=(const CommitCounts& other);
};

// One part. All of it is guarded by its lock.
struct CilPart {
  Mutex mutex{LockRank::kJournalContext};
  LogItem* first = nullptr;  // in order of first insertion
  LogItem* last = nullptr;
  ContextSums sums;
  std::uint64_t unfolded_cost = 0;  // not yet in Cil::cost()
  Reservation credit;               // granted, for the next transactions of this CPU
  CommitCounts counts;
  // Times the lock was taken and let go; odd while it is held shared. The holder writes it, the
  // watchdog reads it without the lock: relaxed, since nothing else is concluded from it.
  std::atomic<std::uint64_t> holds{0};

  void append(LogItem& item, Sequence context);
};

// A context that no commit joins any more.
struct ClosedContext {
  Sequence sequence{};
  LogItem* first = nullptr;
  ContextSums sums;
};

// Padded on purpose: what every commit writes stands apart from what it only reads.
// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding)
class KEEL_CAPABILITY("context lock") Cil {
 public:
  static constexpr unsigned kMostParts = 32;

  explicit Cil(Sequence first, std::uint64_t fold_cost);

  // Takes a part's lock, if possible of this CPU's. Never fails.
  [[nodiscard]] CilPart& lock_shared() KEEL_ACQUIRE_SHARED();
  void unlock_shared(CilPart& part) KEEL_RELEASE_SHARED();
  void lock_exclusive() KEEL_ACQUIRE();
  void unlock_exclusive() KEEL_RELEASE();

  // The current context: its sequence, and whether something was inserted. Both of one moment, or a
  // closed context could look like one to which nobody committed.
  struct Current {
    Sequence sequence;
    bool is_open;
  };
  // Constant while the lock is held; else a moment old.
  [[nodiscard]] Current current() const {
    // Acquire: what a thread finds switched, it finds closed.
    const std::uint64_t word = current_.load(std::memory_order_acquire);
    return {Sequence(word >> 1), (word & 1) != 0};
  }
  [[nodiscard]] Sequence sequence() const { return current().sequence; }
  [[nodiscard]] bool is_open() const { return current().is_open; }
  // Says that it is; true for the one who does it first.
  [[nodiscard]] bool open() KEEL_REQUIRES_SHARED(this) {
    return (current_.load(std::memory_order_relaxed) & 1) == 0 &&
           (current_.fetch_or(1, std::memory_order_acq_rel) & 1) == 0;
  }
  // `count` numbers that no other commit has, the first of them; later commits get larger ones.
  [[nodiscard]] std::uint64_t take_orders(std::uint64_t count) {
    return order_.fetch_add(count, std::memory_order_relaxed);  // Only the values matter.
  }
  // Grows with each commit. No lock: whether it has changed is all that it says.
  [[nodiscard]] std::uint64_t orders_taken() const {
    return order_.load(std::memory_order_relaxed);
  }

  // Adds `cost` to the part and, now and then, to the sum that cost() tells.
  void add_cost(CilPart& part, std::uint64_t cost) KEEL_REQUIRES_SHARED(this);
  // What the current context has been granted, roughly.
  [[nodiscard]] std::uint64_t cost() const {
    return cost_.load(std::memory_order_relaxed);  // An estimate.
  }

  // Takes over the current context and opens the next one; nullopt if it is empty.
  [[nodiscard]] std::optional<ClosedContext> switch_context() KEEL_REQUIRES(this);
  [[nodiscard]] ContextSums sums() const KEEL_REQUIRES(this);

  [[nodiscard]] CilPart& first_part() KEEL_REQUIRES(this) { return parts_[0].value; }

  [[nodiscard]] unsigned part_count() const { return part_count_; }
  // CilPart::holds of one part. Threads: any; no lock.
  [[nodiscard]] std::uint64_t holds(unsigned part) const {
    return parts_[part].value.holds.load(std::memory_order_relaxed);
  }

  template <class Each>
  void for_each_part(const Each& each) {
    for (unsigned i = 0; i < part_count_; ++i) {
      each(parts_[i].value);
    }
  }

  // Walks the lists and aborts if the sums do not match. Returns the memory of active vectors and
  // of shadows of these items.
  [[nodiscard]] std::uint64_t audit(std::uint32_t block_bytes) KEEL_REQUIRES(this);

 private:
  struct alignas(kCacheLinePairBytes) PaddedPart {
    CilPart value;
  };

  const unsigned part_count_;
  const std::uint64_t fold_cost_;
  // Somebody has all parts or is about to. Relaxed: a hint, to keep commits, one after the other,
  // from having a part again and again before he has it.
  std::atomic<bool> switching_{false};
  std::atomic<std::uint64_t> current_;  // twice the sequence, and 1 once it is open
  // A turn, so that switches, one after the other, do not keep a commit that waits from its part.
  alignas(kCacheLinePairBytes) TurnMutex switch_mutex_{LockRank::kJournalSwitchTurn,
                                                       LockRank::kJournalSwitch};
  alignas(kCacheLinePairBytes) std::atomic<std::uint64_t> order_{1};
  alignas(kCacheLinePairBytes) std::atomic<std::uint64_t> cost_{0};
  std::array<PaddedPart, kMostParts> parts_;
};

// Vectors as they come, and then in order. Fast for a few ascending runs, which is what the parts'
// lists are: only relogged items are out of place in them, but a plain merge of them would be
// wrong.
// No allocation.
class VectorSorter {
 public:
  void add(LogVector* vector);
  // The chain of all that were added.
  [[nodiscard]] LogVector* finish();

 private:
  void end_run();

  LogVector* first_ = nullptr;  // of the run at hand
  LogVector* last_ = nullptr;
  std::array<LogVector*, 64> runs_{};  // slot i: the merge of 2^i runs
};

// What items without a home add up to.
struct Homeless {
  std::uint64_t items = 0;
  std::uint64_t cost = 0;  // to log them again, without a checkpoint's unit
};

// Takes every item's vector of this closed context away from it and chains them in order; `written`
// is the number of those that have regions; `homeless`: told, if wanted. No allocation.
[[nodiscard]] LogVector* take_vectors(const ClosedContext& context, std::uint64_t& written,
                                      Homeless* homeless = nullptr);

}  // namespace keel
