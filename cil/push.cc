// Push: closes the current context and writes it as one checkpoint.
//
// Who does it: the thread that forces, when it may, because being woken costs more than a small
// write's preparation; else a worker. Group commit needs no timer: a small checkpoint is written
// alone, and commits gather while it is; large ones are written at the same time, since there the
// device is what is short.
// Source: xlog_cil_push_work, xlog_cil_force_seq (XFS).

#include <algorithm>
#include <utility>

#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/os.h"
#include "log/lock_memory.h"
#include "space.h"

namespace keel {
namespace {

// From here on several writes at once beat one: the device is busy with moving bytes, not with
// answering.
constexpr std::uint64_t kLargeCheckpointBytes = std::uint64_t{512} << 10;

}  // namespace

Result<Sequence> Journal::Impl::sequence_needed(Sequence sequence) const {
  const Cil::Current current = cil.current();
  if (sequence > current.sequence) {
    return Error{Errc::kFutureSequence, 0, "the newest sequence is", current.sequence.value()};
  }
  // Nothing has been committed to an empty context, so there is nothing of it to wait for.
  // A shutdown empties it too, but only after the error is set.
  if (sequence == current.sequence && !current.is_open) {
    if (auto status = stable.status(); !status) {
      return status.error();
    }
    return previous(sequence);
  }
  return sequence;
}

Status Journal::Impl::force(Sequence sequence, std::uint64_t timeout_ns) {
  if (auto status = owned(); !status) {
    return status;
  }
  if (stable.now() >= sequence) {
    return {};
  }
  const Result<Sequence> needed = sequence_needed(sequence);
  if (!needed) {
    return needed.error();
  }
  StableSequence::Waiter waiter;
  waiter.sequence = *needed;
  JournalCounters::add(counters.forces, 1);
  const std::uint64_t deadline_ns = deadline_of(timeout_ns);
  stable.enter(waiter);
  for (bool called_upon_now = false;; called_upon_now = true) {
    // A thread with a transaction open does not run the items' callbacks, and a write may take
    // longer than somebody wants to wait. One that waits for what is closed has nothing to ask for,
    // unless it was called upon: then the turn is its own.
    const bool nothing_to_ask = !called_upon_now && waiter.sequence < cil.sequence();
    if (in_transaction() || timeout_ns != WaitWord::kForever) {
      request_push(waiter.sequence);
    } else if (nothing_to_ask) {
      // Who writes it completes it.
    } else if (Flight* flight = try_start(waiter.sequence); flight != nullptr) {
      push(*flight, false);
    }
    switch (stable.wait(waiter, deadline_ns)) {
      case StableSequence::Wake::kStable: return {};
      case StableSequence::Wake::kFailed: return stable.status();
      case StableSequence::Wake::kTimeout:
        return Error{Errc::kTimeout, 0, "force a sequence", sequence.value()};
      default: break;  // called upon
    }
  }
}

void Journal::Impl::request_push(Sequence sequence) {
  MutexLock lock(push_mutex);
  // Who was called upon, and leaves it to a worker, may have done so when it was not possible yet:
  // the next turn that ends calls upon somebody again.
  called_upon = false;
  if (sequence > push_sequence || sequence >= cil.sequence()) {
    push_sequence = std::max(push_sequence, sequence);
    push_wanted.notify_one();
  }
}

// Not for an empty context: its first commit would make it due, and wake nobody.
void Journal::Impl::request_push_of_open() {
  if (const Cil::Current current = cil.current(); current.is_open) {
    request_push(current.sequence);
  }
}

// Asks for the sequence; gives what it takes to push it, if it is this thread's turn.
Flight* Journal::Impl::try_start(Sequence sequence) {
  MutexLock lock(push_mutex);
  push_sequence = std::max(push_sequence, sequence);
  called_upon = false;
  const bool small = cil.cost() < kLargeCheckpointBytes;
  if (!may_start(small)) {
    return nullptr;
  }
  Flight* flight = free_flight();
  flight->step = Flight::Step::kStarting;
  flight->small = small;
  flight->since_ns = os().monotonic_ns();
  starting = true;
  small_writes += small ? 1 : 0;
  return flight;
}

Flight* Journal::Impl::free_flight() {
  for (unsigned i = 0; i < flight_count; ++i) {
    if (flights[i].step == Flight::Step::kFree) {
      return &flights[i];
    }
  }
  return nullptr;
}

bool Journal::Impl::may_start(bool small) {
  if (starting || free_flight() == nullptr || push_sequence < cil.sequence() || !cil.is_open() ||
      stable.failed() || (small && small_writes > 0)) {
    return false;
  }
  // What is in flight must not reach so far beyond what is stable that the state slots could not
  // keep up with it; what is alone never does.
  const std::uint64_t unstable = last_closed.start_lsn + last_closed.bytes - completed.end.value();
  return first_flight == nullptr ||
         unstable + file.superblock().max_checkpoint_bytes <= file.geometry().data_bytes / 2;
}

// A turn has ended: somebody else's may begin. Those who wait for the open context come first: they
// are awake for it anyway.
void Journal::Impl::start_next() {
  {
    MutexLock lock(push_mutex);
    if (called_upon || !may_start(cil.cost() < kLargeCheckpointBytes)) {
      return;
    }
    called_upon = true;
  }
  if (!stable.call_upon(cil.sequence())) {
    MutexLock lock(push_mutex);
    called_upon = false;
    push_wanted.notify_one();
  }
}

void Journal::Impl::prepare_thread() {
  if (settings.lock_memory && become_log_thread().ok()) {
    io_flusher.store(true, std::memory_order_relaxed);  // A fact for a report.
  }
}

void Journal::Impl::push_worker() {
  prepare_thread();
  for (;;) {
    bool is_to_complete = false;
    {
      MutexLock lock(push_mutex);
      while (!stopping && !is_completion_due() && !may_start(cil.cost() < kLargeCheckpointBytes)) {
        ++idle_workers;
        push_wanted.wait(push_mutex);
        --idle_workers;
      }
      is_to_complete = is_completion_due();
      if (stopping && !is_to_complete) {
        return;
      }
    }
    if (is_to_complete) {
      complete_written(Sequence(UINT64_MAX));
    } else if (Flight* flight = try_start(Sequence{}); flight != nullptr) {
      push(*flight, true);
    } else {
      yield_thread();  // Another has taken the turn; it calls upon the next.
    }
  }
}

void Journal::Impl::push(Flight& flight, bool is_worker) {
  flight.bucket = ail.make_bucket();
  if (!close_context(flight)) {
    ail.give_bucket(flight.bucket);
    start_next();
    return;
  }
  start_next();  // a large context may have gathered already
  finish_write(flight, write_out(flight), is_worker);
}

// Takes the context and puts the next one in its place. False if it is empty: then the flight is
// over.
bool Journal::Impl::close_context(Flight& flight) {
  MutexLock closing(close_mutex);
  std::optional<ClosedContext> closed;
  ClosedCheckpoint& checkpoint = flight.checkpoint;
  checkpoint = {};
  cil.lock_exclusive();
  // After a failure the context is not a checkpoint any more: shut_down() takes it.
  if (!stable.failed()) {
    closed = cil.switch_context();
  }
  if (closed) {
    const std::uint64_t bytes =
        format::checkpoint_shape(closed->sums.packed_bytes, closed->sums.bulk_blocks, block_bytes())
            .bytes;
    const Lsn start = space.close_context(closed->sums.cost, bytes);
    checkpoint.packed_bytes = closed->sums.packed_bytes;
    checkpoint.bulk_blocks = closed->sums.bulk_blocks;
    checkpoint.id = {incarnation, closed->sequence.value(), start.value(), bytes};
  }
  {
    MutexLock lock(push_mutex);
    starting = false;
    if (closed) {
      flight.step = Flight::Step::kWriting;
      flight.next = nullptr;
      (last_flight != nullptr ? last_flight->next : first_flight) = &flight;
      last_flight = &flight;
      checkpoint.predecessor = std::exchange(last_closed, checkpoint.id);
      checkpoint.stable = completed.end;
    } else {
      flight.step = Flight::Step::kFree;
      small_writes -= flight.small ? 1 : 0;
    }
  }
  cil.unlock_exclusive();
  if (closed) {
    Homeless homeless;
    checkpoint.first = take_vectors(*closed, checkpoint.item_count, &homeless);
    // Told while no other context can be closed: what was granted since fits in one checkpoint.
    if (homeless.items != 0) {
      const bool joined = flight.bucket == nullptr;
      const std::uint64_t need =
          need_again(homeless, block_bytes(), space.limits().max_checkpoint_bytes);
      space.needs_again(Lsn(checkpoint.id.start_lsn),
                        need + (joined ? need_to_join(block_bytes()) : 0), joined);
    }
  }
  return closed.has_value();
}

Status Journal::Impl::write_out(Flight& flight) {
  ClosedCheckpoint& checkpoint = flight.checkpoint;
  const TailPosition tail = ail.tail();
  checkpoint.tail = tail.empty ? checkpoint.stable : tail.lsn;
  if (auto status = keep_state_near(Lsn(checkpoint.id.start_lsn) + Bytes(checkpoint.id.bytes));
      !status) {
    return status;
  }
  const std::uint64_t writes = flight.writer->writes();
  if (auto status = flight.writer->write(checkpoint); !status) {
    return status;
  }
  JournalCounters::add(counters.flushes, 1);
  JournalCounters::add(counters.written_bytes, checkpoint.id.bytes);
  JournalCounters::add(counters.writes, flight.writer->writes() - writes);
  return {};
}

}  // namespace keel
