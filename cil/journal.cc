#include "keel/cil/journal.h"

#include <algorithm>
#include <system_error>

#include "journal_impl.h"
#include "keel/base/no_throw.h"
#include "keel/base/os.h"

namespace keel {
namespace {

constexpr std::uint64_t kMostPushThreshold = std::uint64_t{32} << 20;

std::uint64_t choose_threshold(const JournalConfig& config, const format::Superblock& superblock) {
  const std::uint64_t wanted = config.push_threshold != Bytes(0)
                                   ? config.push_threshold.value()
                                   : std::min(superblock.data_bytes / 8, kMostPushThreshold);
  return std::min(wanted, superblock.max_checkpoint_bytes / 2);
}

// Most log bytes that a transaction of this payload can take, whatever its regions' sizes.
std::uint64_t worst_case_bytes(std::size_t max_bytes, std::uint32_t max_items,
                               std::uint32_t block_bytes) {
  // Enough for four regions an item; an item of many small regions must ask for more bytes, as
  // begin()'s docstring says.
  constexpr std::uint64_t kRegionOverhead =
      sizeof(format::RegionHeader) + format::kPackedUnitBytes - 1;
  static_assert(kRegionOverhead == 15);
  constexpr std::uint64_t kItemOverhead = sizeof(format::ItemHeader) + 4 * kRegionOverhead;
  const std::uint64_t packed = max_bytes + max_items * kItemOverhead;
  const std::uint64_t packed_records = format::div_round_up(packed, format::kMaxRecordPackedBytes);
  const std::uint64_t bulk_records = format::div_round_up(max_bytes, format::kMaxRecordBulkBytes);
  return round_up(packed + (packed_records + 1) * sizeof(format::RecordHeader), block_bytes) +
         (bulk_records + 1) * block_bytes;
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
  const auto found = scan(*file, pool, handler, config.recovery_progress);
  if (!found) {
    return found.error();
  }
  const RecoveryReport& report = found->report;
  if (report.end == LogEnd::kDamaged && !config.salvage) {
    return Error{Errc::kDamaged, 0, report.reason, report.head.value()};
  }
  auto writer = CheckpointWriter::make(pool);
  if (!writer) {
    return writer.error();
  }
  const std::uint64_t threshold = choose_threshold(config, file->superblock());
  std::unique_ptr<Impl> impl(
      new (std::nothrow) Impl(std::move(*file), std::move(*writer), pool, *found, threshold));
  if (impl == nullptr) {
    return Error{Errc::kNoMemory, 0, "open a journal", 0};
  }
  if (auto status = impl->take_over(); !status) {
    return status.error();
  }
  if (auto status = impl->start_thread(); !status) {
    return status.error();
  }
  std::unique_ptr<Journal> journal(new (std::nothrow) Journal(std::move(impl)));
  if (journal == nullptr) {
    (void)impl->close();  // still here: nothing was constructed from it
    return Error{Errc::kNoMemory, 0, "open a journal", 0};
  }
  return journal;
}

Result<Transaction> Journal::begin(std::size_t max_bytes, std::uint32_t max_items) {
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
  return Transaction::begin(*this, max_items,
                            worst_case_bytes(max_bytes, max_items, impl_->block_bytes()));
}

Status Journal::force(Sequence sequence) { return impl_->force(sequence); }

Status Journal::force_all() {
  return force(Sequence(impl_->current_sequence.load(std::memory_order_relaxed)));
}

Sequence Journal::stable_sequence() const { return impl_->stable.now(); }

bool Journal::release(LogItem& item) {
  if (item.pinned()) {
    return false;
  }
  impl_->ail.remove(item);
  if (impl_->space.wanted()) {
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
  JournalStats stats;
  stats.transactions = get(counters.transactions);
  stats.items = get(counters.items);
  stats.committed = Bytes(get(counters.committed_bytes));
  stats.coalesced = Bytes(get(counters.coalesced_bytes));
  stats.checkpoints = get(counters.checkpoints);
  stats.written = Bytes(get(counters.written_bytes));
  stats.writes = get(counters.writes);
  stats.flushes = get(counters.flushes);
  stats.forces = get(counters.forces);
  stats.log_used = impl_->space.used();
  stats.log_reserved = impl_->space.outstanding();
  stats.current = Sequence(get(impl_->current_sequence));
  stats.stable = impl_->stable.now();
  return stats;
}

void Journal::audit() const {
  Impl& impl = *impl_;
  ExclusiveLock exclusive(impl.context_mutex);
  MutexLock lock(impl.cil_mutex);
  keel::audit(impl.context);
  impl.space.audit(context_bytes(impl.context, impl.block_bytes()));
  impl.ail.audit();
}

Journal::Impl::Impl(LogFile log_file, std::unique_ptr<CheckpointWriter> checkpoint_writer,
                    Pool& memory, const ScanResult& found, std::uint64_t push_threshold)
    : pool(memory),
      file(std::move(log_file)),
      writer(std::move(checkpoint_writer)),
      report(found.report),
      threshold_bytes(push_threshold),
      space({file.geometry().data_bytes, file.superblock().max_checkpoint_bytes}, report.tail,
            report.head, [this] { nudge(); }),
      stable(report.last_sequence),
      last_id(found.last),
      incarnation_start(report.head),
      stable_lsn(report.head),
      stable_tail(report.tail),
      stable_tail_predecessor(file.state().tail_predecessor) {
  context.sequence = next(report.last_sequence);
  current_sequence.store(context.sequence.value(), std::memory_order_relaxed);
}

Journal::Impl::~Impl() { KEEL_CHECK(!push_thread.joinable(), "journal destroyed while open"); }

Status Journal::Impl::take_over() {
  while (incarnation == 0 || incarnation == file.state().incarnation) {
    incarnation = os().random64();
  }
  ail.prepare();
  if (report.head != report.tail) {
    MutexLock lock(recovered_mutex);
    recovered = ail.publish(report.tail, stable_tail_predecessor);
    ail.prepare();
  }
  return write_state(next_state());
}

Status Journal::Impl::start_thread() {
  try {
    push_thread = std::thread([this] { push_loop(); });
  } catch (const std::system_error& error) {
    return Error{Errc::kSystem, error.code().value(), "start the push thread", 0};
  }
  return {};
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

Status Journal::Impl::force(Sequence sequence) {
  if (auto status = owned(); !status) {
    return status;
  }
  if (stable.now() >= sequence) {
    return {};
  }
  Sequence target = sequence;
  {
    MutexLock lock(cil_mutex);
    if (sequence > context.sequence) {
      return Error{Errc::kFutureSequence, 0, "the newest sequence is", context.sequence.value()};
    }
    // Nothing has been committed to an empty context, so there is nothing of it to wait for.
    // A shutdown empties it too, but only after the error is set.
    if (sequence == context.sequence && context.empty()) {
      if (auto status = stable.status(); !status) {
        return status;
      }
      target = previous(sequence);
    }
  }
  JournalCounters::add(counters.forces, 1);
  request_push(target);
  return stable.wait(target);
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
  if (space.wanted()) {
    nudge();
  }
}

void Journal::Impl::nudge() {
  space.pass_asked();
  MutexLock lock(push_mutex);
  nudged = true;
  push_wanted.notify_one();
}

void Journal::Impl::request_push(Sequence sequence) {
  MutexLock lock(push_mutex);
  push_sequence = std::max(push_sequence, sequence);
  push_wanted.notify_one();
}

Status Journal::Impl::close() {
  if (auto status = owned(); !status) {
    return status;
  }
  if (is_closed) {
    return close_status;
  }
  is_closed = true;
  // First, or the tail moved below could still grant a transaction to who waits in begin(), and its
  // commit would join a context that nobody writes.
  space.fail({Errc::kShutdown, 0, "the journal is closed", 0});
  Status status = force(Sequence(current_sequence.load(std::memory_order_relaxed)));
  {
    MutexLock lock(push_mutex);
    stopping = true;
    push_wanted.notify_one();
  }
  if (push_thread.joinable()) {
    push_thread.join();
  }
  if (status.ok()) {
    status = stable.status();  // the push thread may have failed after what was forced
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
    ItemAccess::release(*item, aborted);
  }
  stable.fail({Errc::kShutdown, 0, "the journal is closed", 0});
  close_status = status;
  return status;
}

Status Journal::Impl::mark_clean() {
  if (auto status = move_tail(true); !status) {
    return status;
  }
  format::StateSlot state = next_state();
  state.flags = format::kStateClean;
  return write_state(state);
}

Status Journal::Impl::write_state(const format::StateSlot& state) {
  const Status status = file.write_state(state);
  MutexLock lock(info_mutex);
  info = file.info();
  return status;
}

}  // namespace keel
