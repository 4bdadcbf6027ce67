// Journal: what every call of the API does beside what its parts do. (Opening: journal_open.cc;
// closing: journal_close.cc.)

#include "keel/cil/journal.h"

#include "journal_impl.h"
#include "release_call.h"
#include "space.h"

namespace keel {

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Journal::~Journal() {
  (void)impl_->close();
  if (!impl_->file.device().owned_by_this_process()) {
    // A forked child has neither the push thread nor the pool's memory: nothing here can be undone.
    (void)impl_.release();
  }
}

Status Journal::Impl::owned() const {
  if (!file.device().owned_by_this_process()) {
    return Error{Errc::kForked, 0, "a journal belongs to the process that opened it", 0};
  }
  return {};
}

Status Journal::Impl::usable() const {
  if (auto status = owned(); !status) {
    return status;
  }
  return stable.status();
}

Status Journal::Impl::on_stable(Sequence sequence, StableCallbacks::Callback callback) {
  if (auto status = owned(); !status) {
    return status;
  }
  Sequence needed = sequence;
  if (stable.now() < sequence) {
    const auto found = sequence_needed(sequence);
    if (!found) {
      return found.error();
    }
    needed = *found;
  }
  if (auto status = callbacks.add(needed, std::move(callback)); !status) {
    return status;
  }
  request_push(needed);
  return {};
}

Result<Transaction> Journal::begin(std::size_t max_bytes, std::uint32_t max_items,
                                   std::uint32_t max_intents) {
  if (auto status = impl_->usable(); !status) {
    return status.error();
  }
  if (max_items == 0) {
    return Error{Errc::kInvalidArgument, 0, "a transaction of no items", 0};
  }
  const std::uint64_t most = impl_->file.superblock().max_checkpoint_bytes;
  if (max_bytes > most || max_items > most) {
    return Error{Errc::kTooLarge, 0, "a transaction's worst case exceeds max_checkpoint, bytes",
                 most};
  }
  Reservation wanted = worst_case(max_bytes, max_items, impl_->block_bytes());
  const Reservation done = done_reservation(impl_->block_bytes());
  wanted.log_bytes += max_intents * done.log_bytes;
  wanted.memory_bytes += max_intents * done.memory_bytes;
  return Transaction::begin(*this, max_items, wanted);
}

Status Journal::force(Sequence sequence, std::uint64_t timeout_ns) {
  if (impl_->callbacks.calling_here()) {
    report_bug({.bug = Bug::kForceInCallback, .call = "Journal::force"});
    return Error{Errc::kInvalidArgument, 0, "a callback may not wait for a sequence", 0};
  }
  return impl_->force(sequence, timeout_ns);
}

Status Journal::force_all() { return force(impl_->cil.sequence()); }

Status Journal::on_stable(Sequence sequence, std::function<void(const Status&)> callback) {
  return impl_->on_stable(sequence, std::move(callback));
}

Sequence Journal::stable_sequence() const { return impl_->stable.now(); }

bool Journal::release(LogItem& item) {
  if (!impl_->owned()) {
    return true;  // A forked child's copy: nobody will ask it for anything.
  }
  if (!impl_->ail.forget(item, ReleaseCall::is_here(item))) {
    return false;
  }
  impl_->trim_shadow(item);
  impl_->ask_for_pass();
  return true;
}

void Journal::release_recovered() {
  if (impl_->owned()) {
    impl_->release_recovered();
  }
}

Status Journal::close() { return impl_->close(); }

const RecoveryReport& Journal::recovery() const { return impl_->report; }

LogInfo Journal::info() const {
  if (!impl_->owned()) {
    return {};  // A forked child: the lock may be taken for ever.
  }
  MutexLock lock(impl_->info_mutex);
  return impl_->info;
}

JournalStats Journal::stats() const {
  const JournalCounters& counters = impl_->counters;
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  JournalStats stats;
  if (!impl_->owned()) {
    return stats;  // A forked child: some lock of its parent's may be taken for ever.
  }
  stats.stable = impl_->stable.now();  // first: it may reach what is current now
  const Impl::Sums sums = impl_->sums();
  stats.transactions = sums.counts.transactions;
  stats.items = sums.counts.items;
  stats.committed = Bytes(sums.counts.committed_bytes);
  stats.coalesced = Bytes(sums.counts.coalesced_bytes);
  stats.checkpoints = get(counters.checkpoints);
  stats.written = Bytes(get(counters.written_bytes));
  stats.writes = get(counters.writes);
  stats.flushes = get(counters.flushes);
  stats.forces = get(counters.forces);
  stats.log_used = sums.space.used + Bytes(sums.context.cost);
  const Reservation& granted = sums.space.granted;
  stats.log_reserved = Bytes(granted.log_bytes - sums.credit.log_bytes - sums.context.cost);
  stats.log_held = Bytes(sums.space.held.log_bytes);
  stats.log_set_aside = Bytes(sums.space.set_aside_bytes);
  stats.memory_held = Bytes(sums.space.held.memory_bytes);
  stats.memory = Bytes(granted.memory_bytes - sums.credit.memory_bytes);
  stats.in_flight = sums.space.in_flight;
  stats.ail_max_hold_ns = impl_->ail.max_hold_ns();
  stats.tail = sums.space.tail;
  stats.current = sums.current;
  return stats;
}

JournalFacts Journal::facts() const {
  JournalFacts facts;
  facts.io_mode = impl_->flights[0].writer->mode();
  facts.depth = impl_->flight_count;
  facts.cil_memory = Bytes(impl_->space.limits().memory_bytes);
  facts.push_threshold = Bytes(impl_->threshold_bytes);
  facts.memory_locked = impl_->memory_locked;
  facts.io_flusher = impl_->io_flusher.load(std::memory_order_relaxed);
  return facts;
}

void Journal::audit() const {
  Impl& impl = *impl_;
  if (!impl.owned()) {
    return;
  }
  impl.drain_credit();
  const std::uint64_t passes = impl.space.sums().passes;
  impl.cil.lock_exclusive();
  // One that is in flight now may be stable before the sums are taken; none comes to be meanwhile.
  const bool at_rest = impl.space.sums().in_flight == 0;
  const std::uint64_t known = impl.cil.audit(impl.block_bytes()) + impl.ail.audit();
  const LogSpace::Sums sums = impl.space.sums();
  const ContextSums context = impl.cil.sums();
  impl.cil.unlock_exclusive();
  // A pass of the upkeep, which may outlast those who asked for it, has what it logs again.
  if (at_rest && !sums.in_pass && sums.passes == passes) {
    KEEL_CHECK(sums.granted.log_bytes == context.cost, "log space granted to nobody",
               sums.granted.log_bytes, context.cost);
    KEEL_CHECK(sums.granted.memory_bytes == known + sums.held.memory_bytes,
               "memory granted to nobody", sums.granted.memory_bytes, known);
  }
}

}  // namespace keel
