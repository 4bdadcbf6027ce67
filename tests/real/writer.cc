#include "writer.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>

#include "faultfs/store.h"
#include "keel/base/check.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "ledger.h"
#include "self_limit.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;

// An object; the ledger learns of its sequence inside commit().
class Object : public ObjectItem {
 public:
  explicit Object(std::uint64_t id) : ObjectItem(id) {}

  std::vector<char> bytes;
  Version version = 0;
  Version logged = 0;    // by this life
  Sequence logged_at{};  // in this checkpoint
  LedgerTransaction* transaction = nullptr;

 protected:
  void committing(Sequence sequence) override { transaction->sequence = sequence.value(); }
};

class Writer {
 public:
  Writer(const WriterPlan& plan, LedgerFile& ledger) : plan_(plan), ledger_(ledger) {
    for (std::size_t i = 0; i < kLedgerObjects; ++i) {
      objects_.push_back(std::make_unique<Object>(i));
      objects_.back()->version = ledger->base[i];
      objects_.back()->bytes.reserve(plan.large ? 400U << 10U : 32U << 10U);
    }
  }

  int run();

 private:
  [[nodiscard]] JournalConfig config();
  void write(std::size_t thread);
  bool write_one(std::size_t thread, std::uint64_t n, std::uint64_t& random);
  [[nodiscard]] Result<Transaction> begin(std::size_t thread, std::size_t bytes);
  bool force(Sequence sequence);
  void promise(std::uint64_t sequence);
  void close();
  void go_home(Object& object);
  void note_failure(const Error& error);
  void try_after_failure(std::size_t thread, std::uint64_t& random);
  void release_recovered();

  const WriterPlan& plan_;
  LedgerFile& ledger_;
  std::unique_ptr<Pool> pool_;                    // outlives the objects
  std::vector<std::unique_ptr<Object>> objects_;  // outlive the journal
  std::unique_ptr<Journal> journal_;
};

JournalConfig Writer::config() {
  JournalConfig config;
  config.pool = pool_.get();
  config.io_mode = plan_.uring ? IoMode::kUring : IoMode::kSync;
  config.buffered = plan_.buffered;
  config.depth = plan_.depth;
  config.lock_memory = plan_.lock_memory;
  config.cover_after_ns = plan_.covers() ? 1'000'000 : 0;
  if (plan_.stall_ms != 0) {
    config.stall_after_ns = plan_.stall_ms * 1'000'000;
  }
  config.on_stall = [this](const StallReport& report) {
    if (plan_.stall_ms != 0) {
      ++ledger_->stalls;
      (void)std::fprintf(stderr, "stall: %s\n", report.line);
    }
  };
  return config;
}

int Writer::run() {
  const bool early = !plan_.limited.empty() && !plan_.late;
  // A limit of file size is of the pool's memory too: it would leave none.
  const bool pool_first = plan_.limited == "file";
  if (early && !pool_first) {
    impose_limit(plan_);
  }
  // Not the process's own: that one aborts if it cannot be had.
  auto pool = Pool::create({});
  if (!pool) {
    (void)std::fprintf(stderr, "pool: %s\n", pool.error().message().c_str());
    return kWriterNotOpened;
  }
  pool_ = std::move(*pool);
  if (early && pool_first) {
    impose_limit(plan_);
  }
  auto opened =
      Journal::open(plan_.log, config(), [](const RecoveredCheckpoint&) -> Status { return {}; });
  if (!opened) {
    (void)std::fprintf(stderr, "open: %s\n", opened.error().message().c_str());
    ledger_->failed_with = 1 + static_cast<std::uint64_t>(opened.error().code);
    return kWriterNotOpened;
  }
  journal_ = std::move(*opened);
  ledger_->memory_locked = journal_->facts().memory_locked ? 1 : 0;
  ledger_->opened = 1;
  while (plan_.gated && ledger_->go == 0) {
    (void)::usleep(50);
  }
  if (!plan_.limited.empty() && plan_.late) {
    impose_limit(plan_);
  }
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < plan_.threads; ++i) {
    try {
      threads.emplace_back([this, i] { write(i); });
    } catch (const std::system_error&) {
      ++ledger_->refused;
      break;  // a limit of threads: then fewer write
    }
  }
  write(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (ledger_->failed_with == 0) {
    close();
  }
  journal_.reset();
  ledger_->done = 1;
  return ledger_->failed_with == 0    ? kWriterDone
         : ledger_->after_failure > 0 ? kWriterUnsound
                                      : kWriterFailed;
}

void Writer::write(std::size_t thread) {
  std::uint64_t random = plan_.seed * 31 + thread;
  std::vector<char*> touched;
  for (std::uint64_t n = 0; n < plan_.transactions; ++n) {
    if (!write_one(thread, n, random)) {
      try_after_failure(thread, random);
      return;
    }
    for (std::uint64_t mib = n * plan_.hungry_mib / plan_.transactions;
         mib < (n + 1) * plan_.hungry_mib / plan_.transactions; ++mib) {
      touched.push_back(new char[1U << 20U]);
      std::fill_n(touched.back(), 1U << 20U, 'x');
    }
  }
}

bool Writer::write_one(std::size_t thread, std::uint64_t n, std::uint64_t& random) {
  LedgerTransaction& entry = ledger_->threads[thread].transactions[n];
  entry.sequence = 0;
  entry.versions = {};
  std::size_t bytes = 0;
  const std::size_t count = 1 + random_step(random) % kObjectsOfTransaction;
  const std::size_t first = random_step(random) % kObjectsOfThread;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t id = thread * kObjectsOfThread + (first + i * 5) % kObjectsOfThread;
    const bool large = plan_.large && i != 3;
    entry.objects[i] = static_cast<std::uint32_t>(id);
    entry.versions[i] = (++ledger_->last_version) | (large ? kLargeVersion : 0);
    Object& object = *objects_[id];
    object.version = entry.versions[i];
    object.transaction = &entry;
    object.bytes.resize(size_of(object.version));
    fill_content(object.version, object.bytes.data(), object.bytes.size());
    if (is_erasure(object.version)) {
      object.erase();
    } else {
      object.set(object.bytes.data(), object.bytes.size());
    }
    bytes += ObjectItem::log_bytes(object.bytes.size());
  }
  ledger_->threads[thread].begun = n + 1;
  auto transaction = begin(thread, bytes);
  if (!transaction) {
    note_failure(transaction.error());
    return false;
  }
  for (std::size_t i = 0; i < count; ++i) {
    KEEL_CHECK(transaction->log(*objects_[entry.objects[i]]).ok(), "log");
  }
  auto sequence = transaction->commit();
  if (!sequence) {
    note_failure(sequence.error());
    return false;
  }
  for (std::size_t i = 0; i < count; ++i) {
    objects_[entry.objects[i]]->logged = entry.versions[i];
    objects_[entry.objects[i]]->logged_at = *sequence;
  }
  if (random_step(random) % plan_.force == 0 && !force(*sequence)) {
    return false;
  }
  if (random_step(random) % 6 == 0) {
    for (int i = 0; i < 6; ++i) {
      go_home(*objects_[thread * kObjectsOfThread + random_step(random) % kObjectsOfThread]);
    }
  }
  if (thread == 0 && n == 20) {
    release_recovered();
  }
  return true;
}

// What is not in the log any more is home.
void Writer::release_recovered() {
  for (std::size_t i = 0; i < kLedgerObjects; ++i) {
    Word& home = ledger_->promises.home[i];
    std::uint64_t now = home;
    // Never back: another thread may have brought a newer one home (versions without the mark of
    // large ones are ascending).
    while ((now & ~kLargeVersion) < (ledger_->base[i] & ~kLargeVersion) &&
           !home.compare_exchange_weak(now, ledger_->base[i])) {
    }
  }
  journal_->release_recovered();
}

// Makes room itself when the log is full.
Result<Transaction> Writer::begin(std::size_t thread, std::size_t bytes) {
  for (;;) {
    auto transaction = journal_->begin(bytes, kObjectsOfTransaction);
    if (transaction || transaction.error().code != Errc::kLogFull) {
      return transaction;
    }
    if (auto forced = journal_->force_all(); !forced) {
      return forced.error();
    }
    release_recovered();
    for (std::size_t i = 0; i < kObjectsOfThread; ++i) {
      go_home(*objects_[thread * kObjectsOfThread + i]);
    }
  }
}

bool Writer::force(Sequence sequence) {
  const bool failed_before = ledger_->failed_with != 0;
  const bool stable_before = journal_->stable_sequence() >= sequence;
  if (auto forced = journal_->force(sequence); !forced) {
    note_failure(forced.error());
    return false;
  }
  if (failed_before && !stable_before) {
    ++ledger_->after_failure;
  }
  promise(sequence.value());
  return true;
}

void Writer::promise(std::uint64_t sequence) {
  std::uint64_t now = ledger_->promises.forced;
  while (now < sequence && !ledger_->promises.forced.compare_exchange_weak(now, sequence)) {
  }
}

// The destructor would close it too, and tell nobody of a failure. What went well is a promise of
// all that was committed.
void Writer::close() {
  ledger_->closing = 1;
  if (const Status closed = journal_->close(); closed) {
    promise(newest_of(*ledger_));
  } else {
    note_failure(closed.error());
  }
}

// An object goes home only when its newest version is stable; one that this life has not logged may
// have newer bytes in the log than at home. The version is what was committed last.
void Writer::go_home(Object& object) {
  // That it is not pinned would not do: after a failure nothing is, stable or not.
  if (object.logged == 0 || object.logged != object.version ||
      object.logged_at > journal_->stable_sequence()) {
    return;
  }
  ledger_->promises.home[object.id()] = object.version;
  (void)journal_->release(object);
}

void Writer::note_failure(const Error& error) {
  std::uint64_t none = 0;
  if (ledger_->failed_with.compare_exchange_strong(none,
                                                   1 + static_cast<std::uint64_t>(error.code))) {
    (void)std::fprintf(stderr, "failed: %s\n", error.message().c_str());
  }
}

// Nothing may succeed any more: neither what was committed before, nor anew.
void Writer::try_after_failure(std::size_t thread, std::uint64_t& random) {
  for (int i = 0; i < 8; ++i) {
    ++ledger_->attempts_after;
    if (journal_->force_all().ok()) {
      ++ledger_->after_failure;
    }
    auto transaction = journal_->begin(100, 1);
    if (!transaction) {
      continue;
    }
    Object object(thread * kObjectsOfThread);
    LedgerTransaction nowhere;
    object.transaction = &nowhere;
    object.erase();
    KEEL_CHECK(transaction->log(object).ok(), "log");
    auto sequence = transaction->commit();
    if (sequence && journal_->force(*sequence).ok()) {
      ++ledger_->after_failure;
    }
    (void)random_step(random);
  }
}

}  // namespace

int run_writer(const WriterPlan& plan) {
  LedgerFile ledger(plan.ledger);
  Writer writer(plan, ledger);
  return writer.run();
}

}  // namespace keel_test
