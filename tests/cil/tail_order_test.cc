// How far the tail may move while a checkpoint becomes complete: never over what it holds, though
// nothing else is tracked, so that what is in the AIL alone says where the tail is.
//
// Two orders see to that: the upkeep looks at what is complete before it looks at what is tracked,
// and a checkpoint is tracked before it is said to be complete. A thread is stopped in between,
// while the other one does all of its part.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/lock_rank.h"
#include "keel/base/thread.h"
#include "probe.h"
#include "sim_start.h"
#include "support/sim_scheduled_disk.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using namespace keel_test;

namespace {

// Knows which thread takes which lock, and can stop one there.
class Stops : public SimScheduler {
 public:
  using SimScheduler::SimScheduler;

  // True: the thread stops before it takes a lock of that rank, until go_on().
  std::function<bool(std::string_view thread, LockRank rank)> stops_at;
  [[nodiscard]] bool stopped() const { return stopped_; }
  void go_on() { goes_on_ = true; }

  void point(ThreadPoint what, std::uint32_t detail) override {
    SimScheduler::point(what, detail);
    if (what == ThreadPoint::kLock && !stopped_ && stops_at &&
        stops_at(name_of_caller(), static_cast<LockRank>(detail))) {
      stopped_ = true;
      while (!goes_on_) {
        sleep(ThreadPoint::kSleep, 1'000'000);
      }
    }
  }
  std::uint32_t announce(const char* name) override {
    const std::uint32_t thread = SimScheduler::announce(name);
    names_.at(thread) = name;
    return thread;
  }
  void begin(std::uint32_t thread) override {
    SimScheduler::begin(thread);
    name_of_caller() = names_.at(thread);
  }

 private:
  static std::string_view& name_of_caller() {
    static thread_local std::string_view name = "main";
    return name;
  }

  std::array<std::string_view, 64> names_{};
  bool stopped_ = false;
  bool goes_on_ = false;
};

constexpr std::size_t kBytes = 30'000;
constexpr std::size_t kWanted = 230'000;  // more than is free then

// A log three quarters full of what nobody needs any more, so that nothing is tracked; room for one
// item beside that; and somebody who waits for more, so that the upkeep wants to move the tail.
class TailWorld {
 public:
  explicit TailWorld(const SimSchedule& schedule)
      : beginning_(fresh_log(schedule.seed)),
        scheduler(schedule),
        disk_(scheduler, {.seed = schedule.seed, .virtual_clock = true}, {}),
        scope_(
            (disk_.boot_with(beginning_, [](const SimSector&) { return SimFate::kKeep; }), disk_)),
        pool_(sim_pool(16)),
        item_(trace_, 1) {
    scheduler.set_name("KEEL_TEST_SEED=" + std::to_string(schedule.seed));
    // No pass comes by itself.
    auto journal = Journal::open(kLogPath,
                                 {.pool = pool_.get(),
                                  .depth = 2,
                                  .cover_after_ns = 3'600'000'000'000,
                                  .stall_after_ns = UINT64_MAX},
                                 kIgnore);
    KEEL_CHECK(journal.ok(), "open");
    journal_ = std::move(*journal);
    const std::uint64_t most = journal_->info().data.value() / 4 * 3;
    while (journal_->stats().log_used.value() + 2 * kBytes < most) {
      passing_.push_back(std::make_unique<Probe>(trace_, 2));
      passing_.back()->regions = {std::string(kBytes, 'p')};
      passing_.back()->after = Tracking::kRelease;
      const Sequence sequence = commit(*journal_, {passing_.back().get()}, kBytes + 1000);
      KEEL_CHECK(journal_->force(sequence).ok(), "force");
    }
    item_.regions = {"forced"};
    auto transaction = journal_->begin(1000, 1);
    KEEL_CHECK(transaction.ok(), "begin");
    room_.emplace(std::move(*transaction));
    disk_.on_io([this](const SimIo& io) {
      has_written_ = has_written_ || io.op == SimOp::kWrite;
      note_moment();
    });
  }

  // Each I/O from then on is a moment for a crash.
  void commit_and_force() {
    KEEL_CHECK(room_->log(item_).ok(), "log");
    const auto sequence = room_->commit();
    KEEL_CHECK(sequence.ok() && journal_->force(*sequence).ok(), "commit and force");
    is_forced_ = true;
    note_moment();
  }
  // Until the tail has moved.
  void wait_for_room() {
    const auto transaction = journal_->begin(kWanted, 1);
    KEEL_CHECK(transaction.ok(), "begin");
  }
  void turn_until(const std::function<bool()>& until) {
    while (!until()) {
      scheduler.sleep(ThreadPoint::kSleep, 1'000'000);
    }
  }
  [[nodiscard]] bool has_written() const { return has_written_; }
  void end() {
    disk_.on_io({});
    journal_->audit();
    KEEL_CHECK(journal_->release(item_), "release");
    KEEL_CHECK(journal_->close().ok(), "close");
    journal_.reset();
  }
  // Of what was forced, moments at which a crash would have lost it.
  [[nodiscard]] std::size_t lost() const {
    std::size_t lost = 0;
    for (const SimSnapshot& moment : moments_) {
      SimDisk after;
      after.boot_with(moment, [](const SimSector&) { return SimFate::kDrop; });
      const ScopedOs crashed(after);
      Found found;
      const auto report = scan_log(kLogPath, collect_into(found));
      bool is_there = false;
      for (const FoundCheckpoint& checkpoint : found) {
        is_there = is_there || checkpoint.items == std::vector<FoundItem>{{17, {"forced"}}};
      }
      lost += report.ok() && is_there ? 0U : 1U;
    }
    return lost;
  }
  [[nodiscard]] std::size_t moments() const { return moments_.size(); }

 private:
  void note_moment() {
    if (is_forced_) {
      moments_.push_back(disk_.snapshot());
    }
  }

  const SimSnapshot beginning_;

 public:
  Stops scheduler;

 private:
  SimScheduledDisk disk_;
  ScopedOs scope_;
  std::unique_ptr<Pool> pool_;
  Trace trace_;
  Probe item_;
  std::vector<std::unique_ptr<Probe>> passing_;
  std::unique_ptr<Journal> journal_;
  std::optional<Transaction> room_;
  bool has_written_ = false;
  bool is_forced_ = false;
  std::vector<SimSnapshot> moments_;
};

}  // namespace

TEST_CASE("what is forced while the upkeep looks for the tail stays in the log") {
  TailWorld world({.seed = 1, .switch_one_in = 500, .spurious_one_in = 0});
  // Between its two looks, whichever is first.
  int looks = -1;  // from the state's lock on
  world.scheduler.stops_at = [&looks](std::string_view thread, LockRank rank) {
    if (thread != "keel-upkeep") {
      return false;
    }
    const bool is_look = rank == LockRank::kJournalPush || rank == LockRank::kJournalAilTurn;
    looks = rank == LockRank::kJournalState ? 0 : looks + (looks >= 0 && is_look ? 1 : 0);
    return looks == 2;
  };
  Thread waiter("waiter", [&] { world.wait_for_room(); });
  world.turn_until([&] { return world.scheduler.stopped(); });
  world.commit_and_force();
  world.scheduler.go_on();
  waiter.join();
  world.end();
  CHECK(world.moments() > 2);  // the slots were written
  CHECK(world.lost() == 0);
}

TEST_CASE("a checkpoint is tracked before the tail may move to its end") {
  TailWorld world({.seed = 1, .switch_one_in = 500, .spurious_one_in = 0});
  // When it is written, and is to enter the AIL.
  world.scheduler.stops_at = [&world](std::string_view thread, LockRank rank) {
    return thread == "main" && rank == LockRank::kJournalAilTurn && world.has_written();
  };
  Thread waiter("waiter", [&] {
    world.turn_until([&] { return world.scheduler.stopped(); });
    world.wait_for_room();
    world.scheduler.go_on();
  });
  world.commit_and_force();
  waiter.join();
  world.end();
  CHECK(world.lost() == 0);
}

#endif
