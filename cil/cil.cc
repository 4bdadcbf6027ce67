#include "cil.h"

#include <algorithm>
#include <utility>

#include "keel/base/check.h"

namespace keel {
namespace {

constexpr int kLookAhead = 6;  // items

// Only the lock's holder writes it, so this need not be one operation.
void count_hold(CilPart& part) {
  part.holds.store(part.holds.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

LockRank rank_of(unsigned part) {
  return static_cast<LockRank>(static_cast<unsigned>(LockRank::kJournalContext) + part);
}

// Merges two sorted chains.
LogVector* merge(LogVector* a, LogVector* b) {
  LogVector* merged = nullptr;
  LogVector** end = &merged;
  while (a != nullptr && b != nullptr) {
    LogVector*& smaller = b->order < a->order ? b : a;
    *end = smaller;
    end = &smaller->next;
    smaller = smaller->next;
  }
  *end = a != nullptr ? a : b;
  return merged;
}

}  // namespace

static_assert(static_cast<unsigned>(LockRank::kJournalContext) + Cil::kMostParts - 1 ==
              static_cast<unsigned>(LockRank::kJournalContextLast));

CommitCounts& CommitCounts::operator+=(const CommitCounts& other) {
  transactions += other.transactions;
  items += other.items;
  committed_bytes += other.committed_bytes;
  coalesced_bytes += other.coalesced_bytes;
  return *this;
}

void CilPart::append(LogItem& item, Sequence context) {
  ItemAccess::next(item, context) = nullptr;
  (last != nullptr ? ItemAccess::next(*last, context) : first) = &item;
  last = &item;
  ++sums.items;
}

Cil::Cil(Sequence first, std::uint64_t fold_cost)
    : part_count_(std::min(possible_cpus(), kMostParts)),
      fold_cost_(fold_cost),
      current_(first.value() << 1) {
  for (unsigned i = 0; i < part_count_; ++i) {
    parts_[i].value.mutex.set_rank(rank_of(i));
  }
}

// The capability is the whole lock, which the analysis cannot see in the parts.
CilPart& Cil::lock_shared() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  if (switching_.load(std::memory_order_relaxed)) [[unlikely]] {
    const TurnLock after(switch_mutex_);
  }
  const unsigned cpu = current_cpu();
  const unsigned mine = cpu < part_count_ ? cpu : cpu % part_count_;
  CilPart* part = &parts_[mine].value;
  if (!part->mutex.try_lock()) [[unlikely]] {
    part = nullptr;
    for (unsigned i = 1; i < part_count_ && part == nullptr; ++i) {
      CilPart& other = parts_[(mine + i) % part_count_].value;
      part = other.mutex.try_lock() ? &other : nullptr;
    }
    if (part == nullptr) {
      part = &parts_[mine].value;
      part->mutex.lock();
    }
  }
  count_hold(*part);
  return *part;
}

void Cil::unlock_shared(CilPart& part) KEEL_NO_THREAD_SAFETY_ANALYSIS {
  count_hold(part);
  part.mutex.unlock();
}

void Cil::lock_exclusive() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  switch_mutex_.lock();
  switching_.store(true, std::memory_order_relaxed);
  for (unsigned i = 0; i < part_count_; ++i) {
    parts_[i].value.mutex.lock();
  }
}

void Cil::unlock_exclusive() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  switching_.store(false, std::memory_order_relaxed);
  for (unsigned i = part_count_; i-- > 0;) {
    parts_[i].value.mutex.unlock();
  }
  switch_mutex_.unlock();
}

void Cil::add_cost(CilPart& part, std::uint64_t cost) {
  part.sums.cost += cost;
  part.unfolded_cost += cost;
  // As a signed number: small differences of either sign stay here.
  const auto unfolded = static_cast<std::int64_t>(part.unfolded_cost);
  if (unfolded >= static_cast<std::int64_t>(fold_cost_) ||
      unfolded <= -static_cast<std::int64_t>(fold_cost_)) {
    cost_.fetch_add(std::exchange(part.unfolded_cost, 0), std::memory_order_relaxed);
  }
}

std::optional<ClosedContext> Cil::switch_context() {
  if (!is_open()) {
    return std::nullopt;
  }
  ClosedContext closed;
  closed.sequence = sequence();
  LogItem* last = nullptr;
  for_each_part([&](CilPart& part) {
    closed.sums += std::exchange(part.sums, {});
    part.unfolded_cost = 0;
    if (part.first != nullptr) {
      (last != nullptr ? ItemAccess::next(*last, closed.sequence) : closed.first) = part.first;
      last = part.last;
      part.first = part.last = nullptr;
    }
  });
  cost_.store(0, std::memory_order_relaxed);
  current_.store(next(closed.sequence).value() << 1, std::memory_order_release);
  return closed;
}

ContextSums Cil::sums() const {
  ContextSums sums;
  for (unsigned i = 0; i < part_count_; ++i) {
    sums += parts_[i].value.sums;
  }
  return sums;
}

std::uint64_t Cil::audit(std::uint32_t block_bytes) {
  ContextSums walked;
  std::uint64_t memory = 0;
  const Sequence now = sequence();
  for_each_part([&](CilPart& part) {
    LogItem* last = nullptr;
    for (LogItem* item = part.first; item != nullptr; item = ItemAccess::next(*item, now)) {
      const LogVector* vector = ItemAccess::active(*item, now);
      KEEL_CHECK(vector != nullptr && vector->item == item && item->pinned(),
                 "an item of the context has no vector or no pin", walked.items);
      ++walked.items;
      walked.packed_bytes += vector->packed_bytes;
      walked.bulk_blocks += vector->bulk_blocks;
      walked.cost += vector->cost();
      memory += vector->capacity_bytes;
      if (const LogVector* shadow = ItemAccess::shadow(*item);
          shadow != nullptr && !item->tracked()) {
        memory += shadow->capacity_bytes;
      }
      last = item;
    }
    KEEL_CHECK(last == part.last, "end of a part's list");
  });
  walked.cost += is_open() ? format::checkpoint_unit(block_bytes) : 0;
  const ContextSums told = sums();
  KEEL_CHECK(walked == told, "sums of the context", walked.items, told.items, walked.cost,
             told.cost);
  return memory;
}

LogVector* take_vectors(const ClosedContext& context, std::uint64_t& written, Homeless* homeless) {
  VectorSorter sorter;
  written = 0;
  // Runs ahead of the walk, so that items and vectors are in the cache when it comes to them.
  LogItem* ahead = context.first;
  const auto look_ahead = [&ahead, &context] {
    if (ahead != nullptr) {
      __builtin_prefetch(ItemAccess::active(*ahead, context.sequence));
      ahead = ItemAccess::next(*ahead, context.sequence);
    }
  };
  for (int i = 0; i < kLookAhead; ++i) {
    look_ahead();
  }
  for (LogItem* item = context.first; item != nullptr;) {
    look_ahead();
    LogItem* following = std::exchange(ItemAccess::next(*item, context.sequence), nullptr);
    LogVector* vector = std::exchange(ItemAccess::active(*item, context.sequence), nullptr);
    KEEL_CHECK(vector != nullptr && vector->item == item, "an item of the context has no vector");
    written += vector->packed_bytes != 0 ? 1 : 0;
    if (homeless != nullptr && vector->packed_bytes != 0 && !ItemAccess::has_home(*item)) {
      homeless->items += 1;
      homeless->cost += vector->cost();
    }
    sorter.add(vector);
    item = following;
  }
  return sorter.finish();
}

void VectorSorter::add(LogVector* vector) {
  vector->next = nullptr;
  if (last_ != nullptr && last_->order < vector->order) {
    last_ = last_->next = vector;
    return;
  }
  end_run();
  first_ = last_ = vector;
}

void VectorSorter::end_run() {
  LogVector* run = first_;
  if (run == nullptr) {
    return;
  }
  std::size_t i = 0;
  for (; runs_[i] != nullptr; ++i) {
    run = merge(std::exchange(runs_[i], nullptr), run);
  }
  runs_[i] = run;
}

LogVector* VectorSorter::finish() {
  end_run();
  LogVector* sorted = nullptr;
  for (LogVector* run : runs_) {
    sorted = merge(run, sorted);
  }
  return sorted;
}

}  // namespace keel
