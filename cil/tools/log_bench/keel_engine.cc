#include "log_bench/keel_engine.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <utility>

#include "keel/measure/ticks.h"

namespace keel::bench {
namespace {

constexpr int kMostForces = 100;  // for one commit
constexpr std::size_t kMiB = std::size_t{1} << 20;
// What a snapshot takes beside its payload, and more.
constexpr std::size_t kItemBytes = 256;

// Payload of all rings together: what can be unstable at a time. Items leave the log by themselves,
// and a force comes every 100 ms: beyond some size only memory is lost.
std::size_t ring_payload_bytes(const EngineConfig& config) {
  return std::min<std::size_t>(config.log.value() / 3, 128 * kMiB);
}

std::size_t items_of_a_thread(const EngineConfig& config) {
  switch (config.use) {
    case EngineUse::kDurable: return 1;
    case EngineUse::kHotSet: return config.objects;
    case EngineUse::kAsync: break;
  }
  const std::size_t each = config.object_bytes + kItemBytes;
  return std::max<std::size_t>(4, ring_payload_bytes(config) / each / config.threads);
}

Result<std::shared_ptr<Pool>> make_pool(const EngineConfig& config) {
  const std::size_t bytes = initial_pool_bytes(config).value();
  auto pool = Pool::create({.capacity_bytes = bytes + 256 * kMiB, .initial_bytes = bytes});
  return pool ? Result<std::shared_ptr<Pool>>(std::move(*pool))
              : Result<std::shared_ptr<Pool>>(pool.error());
}

}  // namespace

Bytes initial_pool_bytes(const EngineConfig& config) {
  // Snapshots of the context, of the checkpoint that is being written, and standby ones.
  const std::size_t items = items_of_a_thread(config) * config.threads;
  return Bytes(2 * items * (config.object_bytes + kItemBytes) + 96 * kMiB);
}

// An object whose key changes with each use. In async use nothing keeps it in the log once it is
// stable; else it stays, so that there is something to recover.
class KeelEngine::KeyItem : public LogItem {
 public:
  explicit KeyItem(EngineUse use)
      : LogItem(kFirstClientType),
        tracking_(use == EngineUse::kAsync ? Tracking::kRelease : Tracking::kTrack) {}

  void set(std::uint64_t key, const std::byte* bytes, std::size_t size_bytes) {
    key_ = key;
    bytes_ = bytes;
    size_bytes_ = size_bytes;
    is_free_.store(false, std::memory_order_relaxed);  // nobody else knows the item
  }
  // The journal knows it no more.
  [[nodiscard]] bool is_free() const {
    return is_free_.load(std::memory_order_acquire);  // pairs with release()
  }
  [[nodiscard]] Sequence sequence() const { return sequence_; }
  void set_sequence(Sequence sequence) { sequence_ = sequence; }

 protected:
  void size(ItemSize& size) const override {
    size.region(sizeof key_);
    size.region(size_bytes_);
  }
  void format(ItemFormatter& formatter) const override {
    formatter.copy(&key_, sizeof key_);
    formatter.copy(bytes_, size_bytes_);
  }
  Tracking committed(Lsn) override { return tracking_; }
  void release(bool) override { is_free_.store(true, std::memory_order_release); }

 private:
  const Tracking tracking_;
  std::atomic<bool> is_free_{true};
  std::uint64_t key_ = 0;
  const std::byte* bytes_ = nullptr;
  std::size_t size_bytes_ = 0;
  Sequence sequence_{};  // of the last commit
};

// Each on cache lines of its own.
struct alignas(128) KeelEngine::ThreadItems {
  std::deque<KeyItem> items;
  std::size_t next = 0;
  Sequence last{};
};

KeelEngine::KeelEngine(const EngineConfig& config, std::shared_ptr<Pool> pool)
    : config_(config),
      pool_(std::move(pool)),
      items_(std::make_unique<ThreadItems[]>(config.threads)) {}

KeelEngine::~KeelEngine() { journal_.reset(); }

std::string KeelEngine::log_path(const std::string& dir) { return dir + "/keel-bench.log"; }

Result<std::unique_ptr<KeelEngine>> KeelEngine::open(const EngineConfig& config,
                                                     std::shared_ptr<Pool> pool, bool buffered) {
  const std::string path = log_path(config.dir);
  if (config.fresh) {
    auto log =
        create_log(path, {.size = config.log, .buffered = buffered, .progress = config.made});
    if (!log) {
      return log.error();
    }
  }
  if (pool == nullptr) {
    auto made = make_pool(config);
    if (!made) {
      return made.error();
    }
    pool = std::move(*made);
  }
  std::unique_ptr<KeelEngine> engine(new KeelEngine(config, std::move(pool)));
  engine->make_items();
  JournalConfig journal_config;
  journal_config.pool = engine->pool_.get();
  journal_config.buffered = buffered;
  journal_config.retry_contiguous = config.retry_contiguous;
  const std::uint64_t start_ns = monotonic_ns();
  auto journal =
      Journal::open(path, journal_config, [](const RecoveredCheckpoint&) { return Status{}; });
  if (!journal) {
    return journal.error();
  }
  engine->open_seconds_ = static_cast<double>(monotonic_ns() - start_ns) * 1e-9;
  engine->journal_ = std::move(*journal);
  engine->journal_->release_recovered();
  return engine;
}

void KeelEngine::make_items() {
  for (unsigned thread = 0; thread < config_.threads; ++thread) {
    for (std::size_t i = items_of_a_thread(config_); i > 0; --i) {
      items_[thread].items.emplace_back(config_.use);
    }
  }
}

Result<KeelEngine::KeyItem*> KeelEngine::item_for(ThreadItems& mine, std::uint64_t key) {
  if (config_.use != EngineUse::kAsync) {
    return &mine.items[config_.use == EngineUse::kHotSet ? key : 0];
  }
  KeyItem& item = mine.items[mine.next];
  mine.next = mine.next + 1 == mine.items.size() ? 0 : mine.next + 1;
  // One force is enough: it returns after its items have been released.
  while (!item.is_free()) {
    if (auto status = journal_->force(item.sequence()); !status) {
      return status.error();
    }
  }
  return &item;
}

Status KeelEngine::commit(unsigned thread, std::uint64_t key, const std::byte* bytes) {
  ThreadItems& mine = items_[thread];
  auto item = item_for(mine, key);
  if (!item) {
    return item.error();
  }
  (*item)->set(key, bytes, config_.object_bytes);
  auto transaction = journal_->begin(config_.object_bytes + sizeof key, 1);
  if (!transaction) {
    return transaction.error();
  }
  if (auto status = transaction->log(**item); !status) {
    return status;
  }
  auto sequence = transaction->commit();
  // A pool that is nearly full has room again when what was committed is stable, which a force
  // waits for, and a transaction that found none can be committed again.
  for (int i = 0; i < kMostForces && !sequence && sequence.error().code == Errc::kNoMemory; ++i) {
    if (auto status = journal_->force_all(); !status) {
      return status;
    }
    sequence = transaction->commit();
  }
  if (!sequence) {
    return sequence.error();
  }
  (*item)->set_sequence(*sequence);
  mine.last = *sequence;
  return config_.use == EngineUse::kDurable ? journal_->force(*sequence) : Status{};
}

Status KeelEngine::force() { return journal_->force_all(); }

Status KeelEngine::close() { return journal_->close(); }

std::uint64_t KeelEngine::log_bytes() const { return journal_->stats().written.value(); }

Sequence KeelEngine::last_sequence(unsigned thread) const { return items_[thread].last; }

}  // namespace keel::bench
