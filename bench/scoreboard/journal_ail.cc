// journal.ail: what does it cost to tell 1,720,000 items that their checkpoint is stable?
//
// One checkpoint of so many items of 8 B, forced. From the end of its last write or flush to the
// return of force(), over the items: the insertion into the AIL and the items' callbacks are in
// that, and the waking of the caller (at most 100 ns an item). And how long does a batch of items
// keep others from the AIL at worst (at most 1 ms)? The clock runs on if its holder loses the
// processor, for milliseconds then; so each sample has a journal of its own.

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "keel/base/os.h"
#include "keel/cil/journal.h"
#include "scoreboard/family.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kItemsEach = 1000;  // of a transaction

// Notes when the last write or flush ended.
class WatchedOs : public Os {
 public:
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    const ssize_t result = Os::pwritev2(fd, parts, count, offset, flags);
    note();
    return result;
  }
  int fdatasync(int fd) override {
    const int result = Os::fdatasync(fd);
    note();
    return result;
  }
  [[nodiscard]] std::uint64_t last_end_ns() const {
    return last_end_ns_.load(std::memory_order_relaxed);
  }

 private:
  void note() { last_end_ns_.store(Os::monotonic_ns(), std::memory_order_relaxed); }
  // Relaxed: whoever reads it was told of the write by the journal.
  std::atomic<std::uint64_t> last_end_ns_{0};
};

// What the first item that is told finds: the end of the checkpoint's I/O, later ones not counted.
class FirstCall {
 public:
  explicit FirstCall(const WatchedOs& watched) : watched_(watched) {}
  void reset() { io_end_ns_.store(0, std::memory_order_relaxed); }
  void called() {
    if (io_end_ns_.load(std::memory_order_relaxed) == 0) {
      std::uint64_t none = 0;
      io_end_ns_.compare_exchange_strong(none, watched_.last_end_ns(), std::memory_order_relaxed);
    }
  }
  [[nodiscard]] std::uint64_t io_end_ns() const {
    return io_end_ns_.load(std::memory_order_relaxed);
  }

 private:
  const WatchedOs& watched_;
  std::atomic<std::uint64_t> io_end_ns_{0};
};

class SmallItem : public LogItem {
 public:
  explicit SmallItem(FirstCall& first) : LogItem(kFirstClientType), first_(first) {}

 protected:
  void size(ItemSize& size) const override { size.region(sizeof value_); }
  void format(ItemFormatter& formatter) const override { formatter.copy(&value_, sizeof value_); }
  void unpin(bool) override { first_.called(); }

 private:
  FirstCall& first_;
  const std::uint64_t value_ = 0x6b65656c;
};

struct Rig {
  WatchedOs watched;
  FirstCall first{watched};
  ScopedOs scoped{watched};
  std::unique_ptr<Pool> pool;
  std::vector<std::unique_ptr<SmallItem>> items;  // the journal goes before them
  std::unique_ptr<Journal> journal;
  std::string path;
  JournalConfig config;
};

Result<Sequence> commit_all(Rig& rig) {
  Result<Sequence> sequence = Sequence{};
  for (std::size_t at = 0; at < rig.items.size() && sequence; at += kItemsEach) {
    auto transaction = rig.journal->begin(kItemsEach * sizeof(std::uint64_t), kItemsEach);
    if (!transaction) {
      return transaction.error();
    }
    for (std::size_t i = at; i < at + kItemsEach; ++i) {
      if (auto status = transaction->log(*rig.items[i]); !status) {
        return status.error();
      }
    }
    sequence = transaction->commit();
  }
  return sequence;
}

Result<Figures> sample(Rig& rig) {
  rig.journal.reset();
  auto journal =
      Journal::open(rig.path, rig.config, [](const RecoveredCheckpoint&) { return Status{}; });
  if (!journal) {
    return journal.error();
  }
  rig.journal = std::move(*journal);
  rig.first.reset();
  const auto sequence = commit_all(rig);
  if (!sequence) {
    return sequence.error();
  }
  if (auto status = rig.journal->force(*sequence); !status) {
    return status.error();
  }
  const std::uint64_t end_ns = os().monotonic_ns();
  const JournalStats stats = rig.journal->stats();
  KEEL_CHECK(stats.checkpoints == 1, "the items' checkpoints", stats.checkpoints);
  for (auto& item : rig.items) {
    while (!rig.journal->release(*item)) {
      std::this_thread::yield();
    }
  }
  const auto ns = static_cast<double>(end_ns - rig.first.io_end_ns());
  return Figures{{"ns", ns / static_cast<double>(rig.items.size())},
                 {"hold", static_cast<double>(stats.ail_max_hold_ns) / 1e6}};
}

Result<Study> prepare(const Setting& setting) {
  const std::size_t items = setting.smoke ? 20'000 : 1'720'000;
  const std::size_t log_bytes = (setting.smoke ? 64 : 1024) * kMiB;
  auto rig = std::make_shared<Rig>();
  rig->path = setting.dir + "/ail.log";
  if (auto log =
          create_log(rig->path, {.size = Bytes(log_bytes), .max_checkpoint = Bytes(log_bytes / 5)});
      !log) {
    return log.error();
  }
  auto pool = Pool::create({.capacity_bytes = log_bytes, .initial_bytes = log_bytes / 2});
  if (!pool) {
    return pool.error();
  }
  rig->pool = std::move(*pool);
  for (std::size_t i = 0; i < items; ++i) {
    rig->items.push_back(std::make_unique<SmallItem>(rig->first));
  }
  rig->config.pool = rig->pool.get();
  rig->config.push_threshold = Bytes(log_bytes);  // as late as can be: one checkpoint
  Study study;
  study.ours = [rig] { return sample(*rig); };
  return study;
}

const FamilyRegistration kAil{
    {{figure_row("journal.ail", "ns", "ns", Goal::kOursAtMost, 100.0,
                 "one checkpoint of 1,720,000 items: ns an item from its last flush to the force's "
                 "return"),
      figure_row("journal.ail.hold", "hold", "ms", Goal::kOursAtMost, 1.0,
                 "the longest that a batch of those items held the AIL's lock")},
     prepare}};

}  // namespace
}  // namespace keel::bench
