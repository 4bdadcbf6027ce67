// Intents and their dones: taken back together, or held until the work is finished; the room for
// the done. What the next life finds of them has intent_recovery_test.cc.
#include "keel/cil/intent_item.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cil.h"
#include "intent_world.h"
#include "intents.h"
#include "keel/base/percpu.h"
#include "log/format.h"
#include "probe.h"
#include "support/death.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

std::string types(const Found& found) {
  std::string text;
  for (const FoundCheckpoint& checkpoint : found) {
    text += "[";
    for (const FoundItem& item : checkpoint.items) {
      text += std::to_string(item.type);
    }
    text += "]";
  }
  return text;
}

// What the disk held at that moment.
Found crash(LogWorld& world, const SimSnapshot& moment) {
  const ScopedOs scope(world.after_power_cut(moment));
  Found found;
  REQUIRE(scan_log(kLogPath, collect_into(found)).ok());
  return found;
}

Found crash(LogWorld& world) { return crash(world, world.disk.snapshot()); }

}  // namespace

TEST_CASE("an intent and its done in one checkpoint take each other back: nothing is written") {
  LogWorld world;
  Trace trace;
  Probe other(trace, 1);
  other.regions = {"x"};
  auto journal = world.open();
  Intent intent(5, kPayload);
  commit(*journal, {&other});
  const std::uint64_t before = journal->stats().log_used.value();
  commit_intent(*journal, intent);
  const Sequence sequence = commit_done(*journal, intent, intent.done);
  CHECK(journal->stats().log_used.value() == before);
  CHECK_FALSE(intent.done.pinned());
  CHECK(intent.pinned());
  REQUIRE(journal->force(sequence).ok());
  CHECK(intent.released == 1);
  CHECK_FALSE(intent.tracked());
  journal->audit();
  CHECK(types(crash(world)) == "[17]");
  finish(journal);
}

TEST_CASE("an intent and its done in one transaction take each other back too") {
  LogWorld world;
  auto journal = world.open();
  Intent intent(5, kPayload);
  {
    auto transaction = journal->begin(IntentItem::log_bytes(100) + DoneItem::log_bytes(), 2, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(intent).ok());
    REQUIRE(transaction->log(intent.done).ok());
    REQUIRE(transaction->commit().ok());
  }
  journal->audit();
  REQUIRE(journal->force_all().ok());
  journal->audit();
  CHECK(intent.released == 1);
  CHECK(types(crash(world)) == "[]");
  finish(journal);
}

TEST_CASE("an intent of an earlier checkpoint leaves when its done is stable, not before") {
  LogWorld world;
  auto journal = world.open();
  Intent intent(5, kPayload);
  REQUIRE(journal->force(commit_intent(*journal, intent)).ok());
  CHECK(intent.tracked());
  const Sequence sequence = commit_done(*journal, intent, intent.done);
  CHECK(intent.tracked());
  CHECK(intent.released == 0);
  REQUIRE(journal->force(sequence).ok());
  CHECK_FALSE(intent.tracked());
  CHECK(intent.released == 1);
  journal->audit();
  CHECK(types(crash(world)) == "[3][4]");
  finish(journal);
  CHECK(intent.released == 1);
}

TEST_CASE("begin_done() that finds the context full sleeps until a transaction ends") {
  class Sleepless : public SimDisk {
   public:
    std::atomic<int> sleeps{0};
    void sleep_ns(std::uint64_t duration_ns) override {
      ++sleeps;
      SimDisk::sleep_ns(duration_ns);
    }
  };
  Sleepless disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = Bytes(64U << 20)}).ok());
  auto journal = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE(journal.ok());
  Intent intent(5, kPayload);
  REQUIRE((*journal)->force(commit_intent(**journal, intent)).ok());
  std::size_t bytes = (*journal)->info().max_checkpoint.value();
  while (!(*journal)->begin(bytes, 1)) {
    bytes -= 512;
  }
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  for (const bool commits : {false, true}) {
    CAPTURE(commits);
    std::atomic<bool> granted{false};
    std::thread waits;
    {
      auto large = (*journal)->begin(bytes, 1);
      REQUIRE(large.ok());
      disk.sleeps = 0;
      waits = std::thread([&] {
        const auto done = (*journal)->begin_done(intent);
        granted = done.ok();
      });
      let_others_run();
      CHECK_FALSE(granted);
      if (commits) {
        REQUIRE(large->log(item).ok());
        REQUIRE(large->commit().ok());
      }
    }
    waits.join();
    CHECK(granted);
    CHECK(disk.sleeps == 0);
  }
  (*journal)->audit();
  CHECK((*journal)->force(commit_done(**journal, intent, intent.done)).ok());
  CHECK((*journal)->close().ok());
}

TEST_CASE("the stats tell what is held for dones and set aside for logging again") {
  LogWorld world;
  auto journal = world.open();
  const LogInfo info = journal->info();
  CHECK(journal->stats().log_held == Bytes(0));
  CHECK(journal->stats().memory_held == Bytes(0));
  CHECK(journal->stats().log_set_aside.value() ==
        std::min(info.data.value() / 16, info.max_checkpoint.value() / 2));
  Intent intent(5, kPayload), other(6, kPayload);
  commit_intent(*journal, intent);
  const JournalStats one = journal->stats();
  const std::uint64_t room = done_reservation(info.block_bytes).log_bytes;
  CHECK(one.log_held == Bytes(room));
  CHECK(one.memory_held > Bytes(0));
  CHECK(one.memory_held <= one.memory);
  commit_intent(*journal, other);
  CHECK(journal->stats().log_held == Bytes(2 * room));
  CHECK(journal->stats().memory_held == one.memory_held + one.memory_held);
  commit_done(*journal, intent, intent.done);
  commit_done(*journal, other, other.done);
  CHECK(journal->stats().log_held == Bytes(0));
  CHECK(journal->stats().memory_held == Bytes(0));
  finish(journal);
}

TEST_CASE("an intent logged again is not taken back: an earlier checkpoint has it") {
  LogWorld world;
  auto journal = world.open();
  Intent intent(5, kPayload);
  REQUIRE(journal->force(commit_intent(*journal, intent)).ok());
  commit_intent(*journal, intent);
  REQUIRE(journal->force(commit_done(*journal, intent, intent.done)).ok());
  CHECK(intent.released == 1);
  journal->audit();
  CHECK(types(crash(world)) == "[3][34]");
  finish(journal);
  journal = world.open();
  CHECK(open_intents(*journal).empty());
  finish(journal);
}

namespace {

// A log so large that a CPU keeps what a commit leaves of its grant.
LogConfig log_with_credit() {
  const std::uint64_t parts = std::min(possible_cpus(), Cil::kMostParts);
  const Bytes checkpoint(16 * parts * 16 * format::checkpoint_unit(4096));
  return {.size = Bytes(5 * checkpoint.value()), .max_checkpoint = checkpoint};
}

void check_done_cancelled(const LogConfig& config) {
  LogWorld world(config);
  auto journal = world.open();
  Intent intent(5, kPayload);
  REQUIRE(journal->force(commit_intent(*journal, intent)).ok());
  for (int i = 0; i < 3; ++i) {
    auto transaction = journal->begin_done(intent);
    REQUIRE(transaction.ok());
    if (i == 1) {
      REQUIRE(transaction->log(intent.done).ok());
    }
    if (i == 2) {
      REQUIRE(transaction->commit().ok());  // of nothing
    }
  }
  journal->audit();
  const Bytes held = journal->stats().log_held;
  CHECK(held.value() == done_reservation(4096).log_bytes);
  REQUIRE(journal->force(commit_done(*journal, intent, intent.done)).ok());
  CHECK(intent.released == 1);
  CHECK(journal->stats().log_held == Bytes(0));
  finish(journal);
}

}  // namespace

TEST_CASE("a transaction of begin_done() that is cancelled leaves the intent what it held") {
  check_done_cancelled({.size = kMinLogBytes});
  check_done_cancelled(log_with_credit());
}

TEST_CASE("a done may be committed with other items: then what its intent held comes back") {
  LogWorld world;
  Trace trace;
  Probe other(trace, 1);
  other.regions = {"x"};
  auto journal = world.open();
  Intent intent(5, kPayload);
  REQUIRE(journal->force(commit_intent(*journal, intent)).ok());
  REQUIRE(journal->force(commit(*journal, {&other, &intent.done})).ok());
  journal->audit();
  CHECK(intent.released == 1);
  CHECK(types(crash(world)) == "[3][174]");
  finish(journal);
}

TEST_CASE("an intent commits only with room for its done") {
  LogWorld world;
  auto journal = world.open();
  Intent intent(5, kPayload);
  {
    auto transaction = journal->begin(IntentItem::log_bytes(100), 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(intent).ok());
    CHECK(transaction->commit().error().code == Errc::kReservationExceeded);
  }
  journal->audit();
  finish(journal);
}

TEST_CASE("in a log full of intents every done still finds its room") {
  LogWorld world;
  const auto fill = [](Journal& journal, std::vector<std::unique_ptr<Intent>>& intents) {
    for (std::uint64_t id = 1;; ++id) {
      auto transaction = journal.begin(IntentItem::log_bytes(100), 1, 1);
      if (!transaction) {
        CHECK(transaction.error().code == Errc::kLogFull);
        return;
      }
      intents.push_back(std::make_unique<Intent>(id, kPayload));
      REQUIRE(transaction->log(*intents.back()).ok());
      REQUIRE(transaction->commit().ok());
      if (id % 4 == 0) {
        REQUIRE(journal.force_all().ok());
      }
    }
  };
  std::vector<std::unique_ptr<Intent>> intents;
  auto journal = world.open();
  fill(*journal, intents);
  REQUIRE(intents.size() > 8);
  REQUIRE(journal->force_all().ok());
  for (const auto& intent : intents) {  // the worst: each alone in its checkpoint
    REQUIRE(journal->force(commit_done(*journal, *intent, intent->done)).ok());
    CHECK(intent->released == 1);
  }
  journal->audit();
  // Again, finished by the next life.
  std::vector<std::unique_ptr<Intent>> more;
  fill(*journal, more);
  finish(journal);
  journal = world.open();
  CHECK(journal->recovered_intents().size() == more.size());
  for (IntentItem* intent : journal->recovered_intents()) {
    DoneItem done(*intent);
    REQUIRE(journal->force(commit_done(*journal, *intent, done)).ok());
  }
  journal->audit();
  finish(journal);
}

TEST_CASE("an intent whose done is on its way to a full log is not logged again behind it") {
  LogWorld world;
  Trace trace;
  Probe other(trace, 1);
  other.after = Tracking::kRelease;
  Gate gate;
  auto journal = world.open();
  Intent intent(5, kPayload);
  REQUIRE(journal->force(commit_intent(*journal, intent)).ok());
  // Full but for less than the largest transaction; nothing but the intent holds the tail.
  const std::uint64_t most = journal->info().data.value();
  while (journal->stats().log_used.value() + 260'000 < most) {
    other.regions = {std::string(50'000, 'x')};
    REQUIRE(journal->force(commit(*journal, {&other}, 50'000)).ok());
  }
  commit_done(*journal, intent, intent.done);
  std::mutex mutex;
  std::vector<SimSnapshot> moments;  // from when the done is in the log
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite) {
      {
        const std::lock_guard lock(mutex);
        moments.push_back(world.disk.snapshot());
      }
      gate.pass();
    }
  });
  // Has the done written, and asks for what holds the tail to be logged again.
  std::thread waiter([&] { CHECK(journal->begin(200'000, 1).ok()); });
  gate.wait_for_arrival();
  let_others_run();
  gate.open();
  waiter.join();
  REQUIRE(journal->force_all().ok());
  CHECK(intent.released == 1);
  world.disk.on_io({});
  for (const SimSnapshot& moment : moments) {
    const std::string found = types(crash(world, moment));
    CAPTURE(found);
    const std::size_t intent_at = found.rfind('3'), done_at = found.rfind('4');
    CHECK(
        (intent_at == std::string::npos || (done_at != std::string::npos && intent_at < done_at)));
  }
  finish(journal);
}

TEST_CASE("a second done, and a done or an intent out of order, abort") {
  LogWorld world;
  // All in the child, with a pool of its own: the parent's is none of its business.
  const auto ending = [](int which) {
    return run_in_child([which] {
      auto pool = Pool::create({.capacity_bytes = std::size_t{64} << 20});
      JournalConfig config;
      config.pool = pool->get();
      const auto journal = Journal::open(kLogPath, config, kIgnore);
      Intent intent(5, kPayload);
      DoneItem second(intent);
      if (which != 0) {
        (void)(*journal)->force(commit_intent(**journal, intent));
        commit_done(**journal, intent, intent.done);
      }
      auto transaction = (*journal)->begin(1000, 1, 1);
      (void)transaction->log(which < 2 ? static_cast<LogItem&>(second) : intent);
      (void)transaction->commit();
    });
  };
  CHECK(ending(0).aborted_with("a done before its intent"));
  CHECK(ending(1).aborted_with("a second done"));
  CHECK(ending(2).aborted_with("an intent after its done"));
  const Ending foreign = run_in_child([] {
    auto pool = Pool::create({.capacity_bytes = std::size_t{64} << 20});
    JournalConfig config;
    config.pool = pool->get();
    const auto journal = Journal::open(kLogPath, config, kIgnore);
    Intent intent(5, kPayload), other(6, kPayload);
    (void)commit_intent(**journal, intent);
    (void)commit_intent(**journal, other);
    auto transaction = (*journal)->begin_done(intent);
    (void)transaction->log(other.done);
  });
  CHECK(foreign.aborted_with("takes that intent's done alone"));
}

TEST_CASE(
    "begin_done() is refused inside of a transaction, in a child, and once the journal ended") {
  LogWorld world;
  auto journal = world.open();
  Intent intent(5, kPayload);
  commit_intent(*journal, intent);
  {
    auto transaction = journal->begin(100, 1);
    REQUIRE(transaction.ok());
    const BugCounter bugs;
    const auto nested = journal->begin_done(intent);
    REQUIRE_FALSE(nested.ok());
    CHECK(nested.error().code == Errc::kInvalidArgument);
    CHECK(bugs.count(Bug::kNestedTransaction) == 1);
  }
  const Ending ending = run_in_child([&] {
    const auto done = journal->begin_done(intent);
    ::_exit(!done && done.error().code == Errc::kForked ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  REQUIRE(journal->close().ok());
  const auto late = journal->begin_done(intent);
  REQUIRE_FALSE(late.ok());
  CHECK(late.error().code == Errc::kShutdown);
  journal.reset();
}

TEST_CASE("begin_done() that waits for room is told when the journal is closed") {
  LogWorld world({.size = Bytes(64U << 20)});
  auto journal = world.open();
  Intent intent(5, kPayload);
  REQUIRE(journal->force(commit_intent(*journal, intent)).ok());
  std::size_t bytes = journal->info().max_checkpoint.value();
  while (!journal->begin(bytes, 1)) {
    bytes -= 512;
  }
  std::thread waits, closes;
  std::atomic<bool> refused{false};
  {
    const auto large = journal->begin(bytes, 1);
    REQUIRE(large.ok());
    waits = std::thread([&] {
      const auto done = journal->begin_done(intent);
      refused = !done && done.error().code == Errc::kShutdown;
    });
    let_others_run();
    CHECK_FALSE(refused);
    closes = std::thread([&] { CHECK(journal->close().ok()); });
    waits.join();
  }
  closes.join();
  CHECK(refused);
  CHECK(intent.released == 1);
  journal.reset();
  journal = world.open();
  CHECK(open_intents(*journal) == std::vector<std::uint64_t>{5});
  finish(journal);
}
