#include "journal_shrinker.h"

#include <algorithm>
#include <functional>

#include "journal_impl.h"
#include "keel/base/os.h"

namespace keel {
namespace {

// Most that it waits for a write; a device that takes longer is no source of memory.
constexpr std::uint64_t kMostWaitNs = 1'000'000'000;
constexpr std::uint64_t kPauseNs = 20'000;

}  // namespace

std::uint64_t JournalShrinker::in_use() const { return journal_.space.sums().granted.memory_bytes; }

// With what open transactions have reserved: a little too much is no harm.
Bytes JournalShrinker::count() const { return Bytes(in_use()); }

Bytes JournalShrinker::scan(Bytes wanted) {
  const std::uint64_t before = in_use();
  const std::uint64_t until = before - std::min(before, wanted.value());
  trim(false, until);
  if (in_use() > until && !journal_.stable.failed()) {
    write_all();
  }
  if (in_use() > until) {
    trim(true, until);
  }
  return Bytes(before - std::min(before, in_use()));
}

void JournalShrinker::trim(bool snapshots_too, std::uint64_t until_used) {
  const auto trim_one = [&](LogItem& item) {
    journal_.free_shadow(take_shadow(item, snapshots_too));
    return in_use() > until_used;
  };
  // By reference: the lambda itself does not fit into a std::function without an allocation.
  (void)journal_.trim_tracked(std::cref(trim_one));
}

// A shadow is claimed to be looked at: one that is to stay goes back, and takes the place of what a
// cancelled commit has left meanwhile. While the context lock is held no context closes, so for an
// item without a pin nothing becomes stable that is newer than what goes back.
LogVector* JournalShrinker::take_shadow(LogItem& item, bool snapshots_too) {
  CilPart& part = journal_.cil.lock_shared();
  LogVector* shadow = item.pinned() ? nullptr : ItemAccess::claim_shadow(item);
  const bool stays =
      shadow != nullptr && ItemAccess::is_newest_snapshot(item, *shadow) && !snapshots_too;
  if (stays) {
    shadow = ItemAccess::return_shadow(item, shadow);
  }
  journal_.cil.unlock_shared(part);
  return shadow;
}

// As a force by somebody who may not run the items' callbacks: the workers do.
void JournalShrinker::write_all() {
  const auto sequence = journal_.sequence_needed(journal_.cil.sequence());
  if (!sequence) {
    return;
  }
  const std::uint64_t deadline_ns = deadline_of(kMostWaitNs);
  StableSequence::Waiter waiter;
  waiter.sequence = *sequence;
  waiter.looks_on = true;
  journal_.request_push(*sequence);
  journal_.stable.enter(waiter);
  if (journal_.stable.wait(waiter, deadline_ns) != StableSequence::Wake::kStable) {
    return;
  }
  // Who waits is woken before the snapshots are freed.
  while (!is_freed(*sequence) && os().monotonic_ns() < deadline_ns) {
    os().sleep_ns(kPauseNs);
  }
}

bool JournalShrinker::is_freed(Sequence sequence) const {
  MutexLock lock(journal_.push_mutex);
  const Flight* flight = journal_.first_flight;
  return flight == nullptr || Sequence(flight->checkpoint.id.sequence) > sequence;
}

}  // namespace keel
