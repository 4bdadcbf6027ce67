// Opening a journal: what the log holds is read and handed over, then the log is taken over and the
// journal's threads start.

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

// Else the state slots could come to say what no reader takes, in both of them: the log would be
// lost.
Status check_room_to_count(const LogFile& file, const RecoveryReport& report) {
  const std::uint64_t farthest =
      std::max({file.state().generation, report.head.value(), report.last_sequence.value()});
  return farthest < format::kOpenLimit
             ? Status{}
             : Error{Errc::kDamaged, 0, "a sequence, LSN or generation near its limit", farthest};
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(const std::string& path, const JournalConfig& config,
                                               const RecoveryHandler& handler) {
  return no_throw("open a journal", [&] { return open_or_throw(path, config, handler); });
}

Result<std::unique_ptr<Journal>> Journal::open_or_throw(const std::string& path,
                                                        const JournalConfig& config,
                                                        const RecoveryHandler& handler) {
  const auto chosen = config.pool != nullptr ? Result<Pool*>(config.pool) : try_default_pool();
  if (!chosen) {
    return chosen.error();
  }
  Pool& pool = **chosen;
  auto file = LogFile::open(path, DeviceMode::kReadWrite, config.buffered, pool);
  if (!file) {
    return file.error();
  }
  const std::uint32_t block = file->geometry().block_bytes;
  IntentCollector intents(file->geometry().data_bytes / done_reservation(block).log_bytes);
  const auto found = scan(*file,
                          [&](const RecoveredCheckpoint& checkpoint) {
                            auto status = intents.add(checkpoint);
                            return status.ok() ? handler(checkpoint) : status;
                          },
                          config.recovery_progress, {.past_bad_blocks = config.salvage});
  if (!found) {
    return found.error();
  }
  const RecoveryReport& report = found->report;
  if (report.end == LogEnd::kDamaged && !config.salvage) {
    return Error{Errc::kDamaged, 0, report.reason, report.head.value()};
  }
  if (auto status = check_room_to_count(*file, report); !status) {
    return status.error();
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

Journal::Impl::Impl(LogFile log_file, Pool& memory, const ScanResult& found,
                    const JournalConfig& config)
    : pool(memory),
      settings(config),
      file(std::move(log_file)),
      report(found.report),
      threshold_bytes(choose_threshold(config, file.superblock())),
      space({file.geometry().data_bytes, file.superblock().max_checkpoint_bytes,
             choose_set_aside(file.superblock()), choose_memory(config, file.superblock(), pool)},
            report.tail, report.head,
            {[this] { drain_credit(); },
             [this] {
               request_push_of_open();
               nudge();
             },
             [this] {
               const Cil::Current current = cil.current();
               return current.is_open ? current.sequence : Sequence{};
             }}),
      most_credit(choose_credit(file.superblock(), space.limits().memory_bytes)),
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
    threads.emplace_back("keel-upkeep", [this] { upkeep_loop(); });
    for (unsigned i = 0; i < flight_count; ++i) {
      threads.emplace_back("keel-push", [this] { push_worker(); });
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

}  // namespace keel
