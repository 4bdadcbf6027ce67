// Completion: what happens to a checkpoint that is written, in the order of sequences; and the end
// of a journal that failed.

#include <utility>

#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/scopes.h"
#include "release_call.h"

namespace keel {
namespace {

// Vectors that are completed together: few enough to stay in the cache from the first look at their
// items to the last, and for the AIL's lock to be held for microseconds.
constexpr int kBatch = 64;

}  // namespace

// The writer's part is over; the device is free for the next small checkpoint.
void Journal::Impl::finish_write(Flight& flight, const Status& status, bool is_worker) {
  if (!status) {
    shut_down(status.error());
  }
  const Sequence own(flight.checkpoint.id.sequence);
  {
    MutexLock lock(push_mutex);
    flight.step = status.ok() ? Flight::Step::kWritten : Flight::Step::kFailed;
    small_writes -= flight.small ? 1 : 0;
  }
  start_next();  // The device has work while those who waited wake.
  complete_written(is_worker ? Sequence(UINT64_MAX) : own);
}

bool Journal::Impl::is_completion_due() const {
  return !completing && first_flight != nullptr &&
         (first_flight->step == Flight::Step::kWritten ||
          first_flight->step == Flight::Step::kFailed);
}

// One thread at a time completes what is written, oldest first; who comes meanwhile leaves it to
// that one. What is behind `last` it leaves to a worker, if one has nothing to do: a force would
// not return for as long as others write.
void Journal::Impl::complete_written(Sequence last) {
  bool any = false;
  {
    MutexLock lock(push_mutex);
    while (is_completion_due()) {
      Flight& flight = *first_flight;
      if (Sequence(flight.checkpoint.id.sequence) > last && idle_workers != 0) {
        push_wanted.notify_one();
        break;
      }
      completing = true;
      const bool good = flight.step == Flight::Step::kWritten && !stable.failed();
      push_mutex.unlock();
      {
        // An item's callback that allocates would wait for a shrinker, which waits for this.
        const NoReclaimScope no_reclaim;
        good ? complete(flight) : abort(flight);
      }
      push_mutex.lock();
      first_flight = flight.next;
      last_flight = first_flight == nullptr ? nullptr : last_flight;
      flight.step = Flight::Step::kFree;
      completing = false;
      any = true;
    }
  }
  if (any) {
    start_next();
    if (space.contended() || upkeep_due()) {
      nudge();
    }
  }
}

// The checkpoint is stable: its items go to the AIL, then they are unpinned (after the insertion:
// an unpinned item may be released at once), then the waiters are woken: a force that has returned
// finds the items unpinned.
void Journal::Impl::complete(Flight& flight) {
  ClosedCheckpoint& checkpoint = flight.checkpoint;
  Bucket* bucket = ail.publish(std::exchange(flight.bucket, nullptr), Lsn(checkpoint.id.start_lsn),
                               checkpoint.predecessor);
  flight.bucket = bucket;
  for (LogVector* vector = checkpoint.first; vector != nullptr;) {
    vector = complete_batch(flight, vector);
  }
  ail.let_go(*bucket);
  flight.bucket = nullptr;
  {
    MutexLock lock(push_mutex);
    completed = {Lsn(checkpoint.id.start_lsn) + Bytes(checkpoint.id.bytes), checkpoint.id};
  }
  checkpoint.first = nullptr;
  JournalCounters::add(counters.checkpoints, 1);
  stable.advance(Sequence(checkpoint.id.sequence));
  free_chain(std::exchange(flight.trash, nullptr));
  space.checkpoint_done();
}

// Returns the vector after the batch. What is to be freed goes to the flight's trash.
LogVector* Journal::Impl::complete_batch(Flight& flight, LogVector* first) {
  const Lsn lsn(flight.checkpoint.id.start_lsn);
  int count = 0;
  LogVector* end = first;
  for (; end != nullptr && count < kBatch; end = end->next, ++count) {
    if (end->next != nullptr) {
      __builtin_prefetch(end->next->item);
    }
    const Tracking tracking = ItemAccess::committed(*end->item, lsn);
    end->cancelled = end->cancelled || tracking == Tracking::kRelease;
  }
  ail.enter(*flight.bucket, first, end);
  for (LogVector* vector = first; vector != end;) {
    LogItem& item = *vector->item;
    const bool leaves = vector->cancelled;
    if (leaves) {
      ItemAccess::let_go_at(item, vector->order);  // A commit that has crossed may keep it here.
    }
    LogVector* unused = vector;
    vector = vector->next;  // Before the item has it: a commit may use it at once.
    if (!leaves && !unused->ordered && !ItemAccess::has_home(item)) {
      unused->is_snapshot = true;
      unused = ItemAccess::exchange_shadow(item, unused);
    }
    if (unused != nullptr) {
      unused->next = flight.trash;
      flight.trash = unused;
    }
    if (ItemAccess::unpin(item, leaves)) {
      let_go_of(item, false, !leaves);
    }
  }
  return end;
}

void Journal::Impl::abort(Flight& flight) {
  ail.give_bucket(std::exchange(flight.bucket, nullptr));
  abort_chain(std::exchange(flight.checkpoint.first, nullptr));
  space.checkpoint_done();
}

// The first error is final: it is kept, everybody gets it, and what was committed is aborted.
void Journal::Impl::shut_down(const Error& error) {
  stable.fail(error);
  space.fail(stable.status().error());  // another thread's may have been the first
  LogVector* vectors = nullptr;
  {
    MutexLock closing(close_mutex);
    // After stable.fail() no commit joins any more; this waits for those that are joining.
    cil.lock_exclusive();
    const auto context = cil.switch_context();
    cil.unlock_exclusive();
    if (context) {
      space.drop_context(context->sums.cost);
      std::uint64_t written = 0;
      vectors = take_vectors(*context, written);
    }
  }
  abort_chain(vectors);
}

void Journal::Impl::abort_chain(LogVector* first) {
  for (LogVector* vector = first; vector != nullptr; vector = vector->next) {
    LogItem& item = *vector->item;
    if (ItemAccess::abort(item)) {
      let_go_of(item, true, false);  // One that is tracked goes when the journal is closed.
    }
  }
  free_chain(first);
}

void Journal::Impl::free_chain(LogVector* first) {
  std::uint64_t bytes = 0;
  while (first != nullptr) {
    LogVector* next = first->next;
    bytes += first->capacity_bytes;
    pool.kvfree(first);
    first = next;
  }
  if (bytes != 0) {
    space.free_memory(bytes);
  }
}

void Journal::Impl::let_go_of(LogItem& item, bool aborted, bool if_wanted) {
  bool again = ail.leave(item, if_wanted);
  const bool has_left = again;
  while (again) {
    trim_left(item);
    // A commit that failed may have crossed.
    again = ReleaseCall::make(item, aborted || item.aborted()) && ail.leave(item, true);
  }
  if (has_left) {
    ask_for_pass();  // Who released it, while it was held, was told that it would leave later.
  }
}

// Frees what the journal had of an item that it has let go of, and not what a commit that has
// crossed with that has given it (which frees the rest: insert_item). While the context lock is
// held nothing becomes stable that joins now: what an item that the journal does not know has is of
// its former life.
void Journal::Impl::trim_left(LogItem& item) {
  if (ItemAccess::shadow(item) == nullptr) {
    return;
  }
  CilPart& part = cil.lock_shared();
  LogVector* shadow = item.in_use() ? nullptr : ItemAccess::claim_shadow(item);
  cil.unlock_shared(part);
  free_shadow(shadow);
}

void Journal::Impl::free_shadow(LogVector* shadow) {
  if (shadow != nullptr) {
    shadow->next = nullptr;
    free_chain(shadow);
  }
}

void Journal::Impl::trim_shadow(LogItem& item) { free_shadow(ItemAccess::claim_shadow(item)); }

}  // namespace keel
