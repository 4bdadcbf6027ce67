// The push thread: closes the current context, writes it as one checkpoint, makes it stable, and
// tells everyone. Group commit needs no timer: commits gather while the write before them is in
// flight.

#include <algorithm>
#include <utility>

#include "journal_impl.h"
#include "keel/base/check.h"

namespace keel {

void Journal::Impl::push_loop() {
  for (;;) {
    {
      MutexLock lock(push_mutex);
      while (!nudged && !stopping && push_sequence <= stable.now()) {
        push_wanted.wait(push_mutex);
      }
      if (stopping) {
        return;
      }
      nudged = false;
    }
    space.pass_begins();
    pass();
    space.pass_ended();
    if (stable.failed()) {
      // Every waiter has its error; what is committed later finds it first.
      MutexLock lock(push_mutex);
      push_sequence = Sequence{};
      nudged = false;
      while (!stopping) {
        push_wanted.wait(push_mutex);
      }
      return;
    }
  }
}

void Journal::Impl::pass() {
  ail.prepare();
  ClosedCheckpoint checkpoint;
  if (close_context(checkpoint)) {
    checkpoint.first = sort_by_order(checkpoint.first);
    if (auto status = write_out(checkpoint); !status) {
      shut_down(status.error());
      abort_chain(checkpoint.first);
      return;
    }
    complete(checkpoint);
  }
  if (auto status = move_tail(space.wanted()); !status) {
    shut_down(status.error());
  }
}

// Takes the context and puts the next one in its place. False if it is empty.
bool Journal::Impl::close_context(ClosedCheckpoint& checkpoint) {
  ExclusiveLock exclusive(context_mutex);
  MutexLock lock(cil_mutex);
  if (context.empty()) {
    return false;
  }
  checkpoint.first = detach_vectors(context);
  checkpoint.packed_bytes = context.packed_bytes;
  checkpoint.bulk_blocks = context.bulk_blocks;
  const std::uint64_t bytes = context_bytes(context, block_bytes());
  const Lsn start = space.close_context(bytes);
  checkpoint.id = {incarnation, context.sequence.value(), start.value(), bytes};
  context = Context{.sequence = next(context.sequence)};
  current_sequence.store(context.sequence.value(), std::memory_order_relaxed);
  return true;
}

Status Journal::Impl::write_out(ClosedCheckpoint& checkpoint) {
  checkpoint.predecessor = last_id;
  for (const LogVector* vector = checkpoint.first; vector != nullptr; vector = vector->next) {
    checkpoint.item_count += vector->region_count != 0 ? 1 : 0;
  }
  const TailPosition tail = ail.tail();
  checkpoint.tail = tail.empty ? Lsn(checkpoint.id.start_lsn) : tail.lsn;
  checkpoint.stable = stable_lsn;
  if (auto status = writer->write(file, checkpoint); !status) {
    return status;
  }
  if (auto status = file.device().flush(); !status) {
    return status;
  }
  last_id = checkpoint.id;
  stable_lsn = Lsn(checkpoint.id.start_lsn) + Bytes(checkpoint.id.bytes);
  JournalCounters::add(counters.checkpoints, 1);
  JournalCounters::add(counters.flushes, 1);
  JournalCounters::add(counters.written_bytes, checkpoint.id.bytes);
  counters.writes.store(writer->writes(), std::memory_order_relaxed);
  return {};
}

// The checkpoint is stable: its items go to the AIL, then they are unpinned (after the insertion:
// an unpinned item may be released at once), then the waiters are woken: a force that has returned
// finds the items unpinned.
void Journal::Impl::complete(const ClosedCheckpoint& checkpoint) {
  const Lsn start(checkpoint.id.start_lsn);
  Bucket* bucket = ail.publish(start, checkpoint.predecessor);
  ail.fill(*bucket, checkpoint.first);
  for (LogVector* vector = checkpoint.first; vector != nullptr; vector = vector->next) {
    ItemAccess::committed(*vector->item, start);
    ItemAccess::unpin(*vector->item, false);
  }
  ail.let_go(*bucket);
  stable.advance(Sequence(checkpoint.id.sequence));
  free_chain(checkpoint.first);
}

format::StateSlot Journal::Impl::next_state() const {
  format::StateSlot state{};
  state.incarnation = incarnation;
  state.incarnation_start_lsn = incarnation_start.value();
  state.tail_lsn = stable_tail.value();
  state.tail_predecessor = stable_tail_predecessor;
  state.stable_lsn = stable_lsn.value();
  return state;
}

// Records a newer tail in the state slots once that is worth two flushes: when somebody waits for
// space, or half of the log is used and an eighth could be had. The space counts as free after
// that.
Status Journal::Impl::move_tail(bool needed) {
  const TailPosition found = ail.tail();
  const Lsn tail = found.empty ? stable_lsn : found.lsn;
  const std::uint64_t gain = (tail - stable_tail).value();
  const std::uint64_t log_bytes = file.geometry().data_bytes;
  const bool worth_it = space.used().value() > log_bytes / 2 && gain >= log_bytes / 8;
  if (gain == 0 || !(needed || worth_it)) {
    return {};
  }
  stable_tail = tail;
  stable_tail_predecessor = found.empty ? last_id : found.predecessor;
  if (auto status = write_state(next_state()); !status) {
    return status;
  }
  JournalCounters::add(counters.flushes, 2);
  space.tail_moved(tail);
  return {};
}

// The first error is final: it is kept, everybody gets it, and what was committed is aborted.
void Journal::Impl::shut_down(const Error& error) {
  stable.fail(error);
  space.fail(error);
  LogVector* current = nullptr;
  {
    // After stable.fail() no commit joins any more; this waits for those that are joining.
    ExclusiveLock exclusive(context_mutex);
    MutexLock lock(cil_mutex);
    current = detach_vectors(context);
    context = Context{.sequence = context.sequence};
    space.drop_context();
  }
  abort_chain(current);
}

void Journal::Impl::abort_chain(LogVector* first) {
  for (LogVector* vector = first; vector != nullptr; vector = vector->next) {
    ItemAccess::unpin(*vector->item, true);
  }
  free_chain(first);
}

void Journal::Impl::free_chain(LogVector* first) {
  while (first != nullptr) {
    LogVector* next = first->next;
    pool.kvfree(first);
    first = next;
  }
}

}  // namespace keel
