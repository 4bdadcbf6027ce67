#include "keel/cil/journal.h"

#include <algorithm>

#include "journal_impl.h"
#include "keel/base/no_throw.h"
#include "keel/base/os.h"
#include "keel/base/percpu.h"
#include "log/lock_memory.h"
#include "space.h"
#include "thread_start.h"

namespace keel {
namespace {

constexpr std::uint64_t kMostPushThreshold = std::uint64_t{32} << 20;

std::uint64_t choose_threshold(const JournalConfig& config, const format::Superblock& superblock) {
  const std::uint64_t wanted = config.push_threshold != Bytes(0)
                                   ? config.push_threshold.value()
                                   : std::min(superblock.data_bytes / 8, kMostPushThreshold);
  return std::min(wanted, superblock.max_checkpoint_bytes / 2);
}

unsigned choose_depth(const JournalConfig& config) {
  return config.depth != 0 ? std::min(config.depth, kMostDepth) : possible_cpus() <= 2 ? 2U : 4U;
}

}  // namespace

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Journal::~Journal() {
  (void)impl_->close();
  if (!impl_->file.device().owned_by_this_process()) {
    // A forked child has neither the push thread nor the pool's memory: nothing here can be undone.
    (void)impl_.release();
  }
}

Result<std::unique_ptr<Journal>> Journal::open(const std::string& path, const JournalConfig& config,
                                               const RecoveryHandler& handler) {
  return no_throw("open a journal", [&] { return open_or_throw(path, config, handler); });
}

Result<std::unique_ptr<Journal>> Journal::open_or_throw(const std::string& path,
                                                        const JournalConfig& config,
                                                        const RecoveryHandler& handler) {
  Pool& pool = config.pool != nullptr ? *config.pool : default_pool();
  auto file = LogFile::open(path, DeviceMode::kReadWrite, config.buffered, pool);
  if (!file) {
    return file.error();
  }
  const std::uint32_t block = file->geometry().block_bytes;
  IntentCollector intents(file->geometry().data_bytes / done_reservation(block).log_bytes);
  const auto found = scan(
      *file, pool,
      [&](const RecoveredCheckpoint& checkpoint) {
        auto status = intents.add(checkpoint);
        return status.ok() ? handler(checkpoint) : status;
      },
      config.recovery_progress);
  if (!found) {
    return found.error();
  }
  const RecoveryReport& report = found->report;
  if (report.end == LogEnd::kDamaged && !config.salvage) {
    return Error{Errc::kDamaged, 0, report.reason, report.head.value()};
  }
  std::unique_ptr<Impl> impl(new (std::nothrow) Impl(std::move(*file), pool, *found, config));
  if (impl == nullptr) {
    return Error{Errc::kNoMemory, 0, "open a journal", 0};
  }
  if (auto status = impl->make_flights(choose_depth(config)); !status) {
    return status.error();
  }
  impl->recovered_intents = intents.take();
  if (auto status = impl->check_intents(); !status) {
    return status.error();
  }
  impl->intents.reserve(impl->recovered_intents.size());
  if (auto status = impl->take_over(); !status) {
    return status.error();
  }
  if (auto status = impl->start_threads(); !status) {
    return status.error();
  }
  std::unique_ptr<Journal> journal(new (std::nothrow) Journal(std::move(impl)));
  if (journal == nullptr) {
    (void)impl->close();  // still here: nothing was constructed from it
    return Error{Errc::kNoMemory, 0, "open a journal", 0};
  }
  journal->impl_->adopt_intents(*journal);
  return journal;
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
  std::atomic<std::uint32_t>& state = ItemAccess::state(item);
  if (impl_->stable.failed()) {
    return false;  // A thread of the journal may be about to let go of it.
  }
  if (state.load(std::memory_order_acquire) == 0) {
    return true;
  }
  // Whoever holds the item finds the mark when it lets go, or has let go before it was set.
  const std::uint32_t before = state.fetch_or(ItemState::kReleaseWanted, std::memory_order_acq_rel);
  if ((before & (ItemState::kPins | ItemState::kHeld)) != 0) {
    return false;
  }
  if (!impl_->ail.forget(item, true)) {
    return false;  // Logged again at this moment, or another thread lets go of it.
  }
  impl_->trim_shadow(item);
  if (impl_->space.contended()) {
    impl_->nudge();
  }
  return true;
}

void Journal::release_recovered() { impl_->release_recovered(); }

Status Journal::close() { return impl_->close(); }

const RecoveryReport& Journal::recovery() const { return impl_->report; }

LogInfo Journal::info() const {
  MutexLock lock(impl_->info_mutex);
  return impl_->info;
}

JournalStats Journal::stats() const {
  const JournalCounters& counters = impl_->counters;
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  CommitCounts counts;
  Reservation credit;
  ContextSums context;
  impl_->sum_parts(counts, credit, context);
  const LogSpace::Sums sums = impl_->space.sums();
  JournalStats stats;
  stats.transactions = counts.transactions;
  stats.items = counts.items;
  stats.committed = Bytes(counts.committed_bytes);
  stats.coalesced = Bytes(counts.coalesced_bytes);
  stats.checkpoints = get(counters.checkpoints);
  stats.written = Bytes(get(counters.written_bytes));
  stats.writes = get(counters.writes);
  stats.flushes = get(counters.flushes);
  stats.forces = get(counters.forces);
  stats.log_used = sums.used + Bytes(context.cost);
  // Sums taken one after the other: a commit in between may be in both.
  const std::uint64_t spoken_for = credit.log_bytes + context.cost;
  stats.log_reserved = Bytes(sums.granted.log_bytes - std::min(sums.granted.log_bytes, spoken_for));
  stats.memory =
      Bytes(sums.granted.memory_bytes - std::min(sums.granted.memory_bytes, credit.memory_bytes));
  stats.in_flight = sums.in_flight;
  stats.tail = sums.tail;
  stats.current = impl_->cil.sequence();
  stats.stable = impl_->stable.now();
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
  impl.drain_credit();
  const std::uint64_t passes = impl.space.sums().passes;
  impl.cil.lock_exclusive();
  const std::uint64_t memory = impl.cil.audit(impl.block_bytes()) + impl.ail.audit() +
                               impl.held_memory.load(std::memory_order_relaxed);
  const LogSpace::Sums sums = impl.space.sums();
  const ContextSums context = impl.cil.sums();
  impl.cil.unlock_exclusive();
  // A pass of the upkeep, which may outlast those who asked for it, has what it logs again.
  if (sums.in_flight == 0 && !sums.in_pass && sums.passes == passes) {
    KEEL_CHECK(sums.granted.log_bytes == context.cost, "log space granted to nobody",
               sums.granted.log_bytes, context.cost);
    KEEL_CHECK(sums.granted.memory_bytes == memory, "memory granted to nobody",
               sums.granted.memory_bytes, memory);
  }
}

Journal::Impl::Impl(LogFile log_file, Pool& memory, const ScanResult& found,
                    const JournalConfig& config)
    : pool(memory),
      settings(config),
      file(std::move(log_file)),
      report(found.report),
      threshold_bytes(choose_threshold(config, file.superblock())),
      most_credit(choose_credit(file.superblock(), choose_memory(config, file.superblock(), pool))),
      space({file.geometry().data_bytes, file.superblock().max_checkpoint_bytes,
             choose_set_aside(file.superblock()), choose_memory(config, file.superblock(), pool)},
            report.tail, report.head,
            {[this] { drain_credit(); },
             [this] {
               request_push(cil.sequence());
               nudge();
             },
             [this] { return cil.is_open(); }}),
      stable(report.last_sequence),
      cil(next(report.last_sequence), std::min(threshold_bytes / 16, std::uint64_t{256} << 10)),
      last_closed(found.last),
      completed{report.head, found.last},
      incarnation_start(report.head),
      state_tail(report.tail),
      state_tail_predecessor(file.state().tail_predecessor),
      state_stable(report.head) {}

Journal::Impl::~Impl() { KEEL_CHECK(threads.empty(), "journal destroyed while open"); }

Status Journal::Impl::make_flights(unsigned depth) {
  for (; flight_count < depth; ++flight_count) {
    auto writer = CheckpointWriter::make(file, settings.io_mode, pool);
    if (!writer) {
      return writer.error();
    }
    flights[flight_count].writer = std::move(*writer);
  }
  return {};
}

Status Journal::Impl::take_over() {
  while (incarnation == 0 || incarnation == file.state().incarnation) {
    incarnation = os().random64();
  }
  if (report.head != report.tail) {
    MutexLock lock(recovered_mutex);
    recovered = ail.publish(ail.make_bucket(), report.tail, file.state().tail_predecessor);
  }
  MutexLock lock(state_mutex);
  return write_state(0);
}

Status Journal::Impl::start_threads() {
  memory_locked = settings.lock_memory && lock_process_memory().ok();
  const Status started = start_or_say("start the journal's threads", [this] {
    threads.reserve(flight_count + 1);
    threads.emplace_back([this] { upkeep_loop(); });
    for (unsigned i = 0; i < flight_count; ++i) {
      threads.emplace_back([this] { push_worker(); });
    }
    watchdog.start();
  });
  if (!started) {
    stop_threads();  // the watchdog is the last to start
    release_recovered();
    return started;
  }
  // A pool that has no room for one more shrinker goes without this one.
  (void)pool.add_shrinker(shrinker);
  return {};
}

void Journal::Impl::stop_threads() {
  {
    MutexLock lock(push_mutex);
    stopping = true;
    push_wanted.notify_all();
  }
  stop_upkeep();
  for (std::thread& thread : threads) {
    if (thread.joinable()) {
      thread.join();
    }
  }
  threads.clear();
}

void Journal::Impl::stop_upkeep() {
  {
    MutexLock lock(upkeep_mutex);
    upkeep_stopping = true;
    upkeep_wanted.notify_all();
  }
  if (!threads.empty() && threads.front().joinable()) {
    threads.front().join();
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

void Journal::Impl::release_recovered() {
  {
    MutexLock lock(recovered_mutex);
    if (recovered == nullptr) {
      return;
    }
    ail.let_go(*recovered);
    recovered = nullptr;
  }
  if (space.contended()) {
    nudge();
  }
}

Status Journal::Impl::close() {
  if (auto status = owned(); !status) {
    return status;
  }
  if (is_closed) {
    return close_status;
  }
  if (callbacks.calling_here()) {
    report_bug({.bug = Bug::kForceInCallback, .call = "Journal::close"});
    return Error{Errc::kInvalidArgument, 0, "a callback may not close its journal", 0};
  }
  is_closed = true;
  pool.remove_shrinker(shrinker);  // first of all: it needs the journal's threads
  // Before the rest, or the tail moved below could still grant a transaction to who waits in
  // begin(), and its commit would join a context that nobody writes.
  space.fail({Errc::kShutdown, 0, "the journal is closed", 0});
  // Before the force: the upkeep might log something again after it, or be pushing items home.
  stop_upkeep();
  Status status = force(cil.sequence(), WaitWord::kForever);
  callbacks.close();  // what they have committed is forced below
  if (status.ok()) {
    status = force(cil.sequence(), WaitWord::kForever);
  }
  if (status.ok()) {
    push_all_home();
  }
  stop_threads();
  watchdog.stop();
  followers.close();
  if (status.ok()) {
    status = stable.status();  // a thread may have failed after what was forced
  }
  if (status.ok()) {
    status = mark_clean();
  }
  if (!status) {
    stable.fail(status.error());
  }
  const bool aborted = stable.failed();
  release_recovered();
  while (LogItem* item = ail.remove_first()) {
    let_go_of(*item, aborted, false);
  }
  stable.fail({Errc::kShutdown, 0, "the journal is closed", 0});
  close_status = status;
  return status;
}

// So that there is nothing to replay: asks everything with a home to go there, as long as that
// makes it fewer.
void Journal::Impl::push_all_home() {
  constexpr int kMostPasses = 1000;
  constexpr std::uint64_t kPauseNs = 1'000'000;
  std::size_t before = SIZE_MAX;
  int idle_passes = 0;
  for (int i = 0; i < kMostPasses && idle_passes < 10; ++i) {
    const PushSums sums = push_items(Lsn(UINT64_MAX));
    if (sums.under_way == 0) {
      return;
    }
    idle_passes = sums.under_way < before ? 0 : idle_passes + 1;
    before = sums.under_way;
    os().sleep_ns(kPauseNs);
  }
}

Status Journal::Impl::mark_clean() {
  if (auto status = move_tail(true); !status) {
    return status;
  }
  MutexLock lock(state_mutex);
  state_stable = newest_complete().end;
  return write_state(format::kStateClean);
}

}  // namespace keel
