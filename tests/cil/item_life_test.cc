// Who lets go of an item, when several would: pushes, releases, commits, close().
#include <doctest/doctest.h>

#include <memory>
#include <thread>
#include <vector>

#include "log_vector.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBytes = 60'000;

// Commits and forces items of kBytes until the log is so full that items are pushed home.
void fill(Journal& journal, Trace& trace, std::vector<std::unique_ptr<Probe>>& items) {
  while (journal.stats().log_used.value() <= journal.info().data.value() / 4 * 3) {
    items.push_back(std::make_unique<Probe>(trace, 100));
    items.back()->regions = {std::string(kBytes, 'x')};
    items.back()->after = Tracking::kRelease;
    REQUIRE(journal.force(commit(journal, {items.back().get()}, kBytes)).ok());
  }
}

}  // namespace

TEST_CASE("an item that is committed while it is being pushed home, and then done, is told so") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  std::vector<std::unique_ptr<Probe>> others;
  item.regions = {std::string(kBytes, 'x')};
  Gate gate;
  item.home = [&](Probe&) {
    gate.pass();
    return PushResult::kLocked;
  };
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item}, kBytes)).ok());
  fill(*journal, trace, others);
  gate.wait_for_arrival();
  item.after = Tracking::kRelease;
  REQUIRE(journal->force(commit(*journal, {&item}, kBytes)).ok());
  CHECK_FALSE(item.pinned());
  gate.open();
  (void)journal->close();
  CHECK(trace.count(Call::kRelease) == others.size() + 1);
}

TEST_CASE("close() pushes no item home that is being pushed home already") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  std::vector<std::unique_ptr<Probe>> others;
  item.regions = {std::string(kBytes, 'x')};
  Gate gate;
  std::atomic<int> inside{0}, most{0};
  item.home = [&](Probe&) {
    most = std::max(most.load(), ++inside);
    gate.pass();
    --inside;
    return PushResult::kLocked;
  };
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item}, kBytes)).ok());
  fill(*journal, trace, others);
  gate.wait_for_arrival();
  std::atomic<bool> closing{false};
  std::thread closer([&] {
    closing = true;
    CHECK(journal->close().ok());
  });
  yield_until([&] { return closing.load(); });
  let_others_run();
  gate.open();
  closer.join();
  CHECK(most == 1);
  CHECK(trace.count(Call::kRelease) == others.size() + 1);
}

TEST_CASE("a snapshot that a cancelled transaction gives back is not logged in place of a newer") {
  LogWorld world({.size = Bytes(4U << 20)});
  Trace trace;
  Probe item(trace, 1), too_large(trace, 2);
  item.regions = {"first " + std::string(20'000, '1')};
  too_large.regions = {std::string(30'000, 'x')};
  auto journal = world.open();
  Gate first, second;
  std::atomic<int> writes{0};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && io.bytes > 4096) {  // a checkpoint, not a state slot
      const int n = writes++;
      if (n < 2) {
        (n == 0 ? first : second).pass();
      }
    }
  });
  // The first is in flight while the second is committed: so the item has two vectors.
  const Sequence one = commit(*journal, {&item}, 21'000);
  std::thread force_one([&] { CHECK(journal->force(one).ok()); });
  first.wait_for_arrival();
  item.regions = {"newest " + std::string(20'000, '2')};
  const Sequence two = commit(*journal, {&item}, 21'000);
  first.open();
  force_one.join();
  std::thread force_two([&] { CHECK(journal->force(two).ok()); });
  second.wait_for_arrival();
  std::vector<std::unique_ptr<Probe>> others;
  {
    auto transaction = journal->begin(22'000, 2);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(item).ok());
    REQUIRE(transaction->log(too_large).ok());
    const auto refused = transaction->commit();
    REQUIRE_FALSE(refused.ok());
    REQUIRE(refused.error().code == Errc::kReservationExceeded);
    second.open();
    force_two.join();
    // What trimming does when memory is short.
    LogVector* newest = ItemAccess::claim_shadow(item);
    if (newest != nullptr) {
      CHECK(newest->is_snapshot);
      default_pool().kvfree(newest);
    }
  }
  const LogVector* left = ItemAccess::shadow(item);
  CHECK((left == nullptr || !left->is_snapshot));
  world.disk.on_io(nullptr);
  finish(journal);
}

TEST_CASE("an item that is committed again after its release stays in the log") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"old"};
  auto journal = world.open();
  commit(*journal, {&item});
  CHECK_FALSE(journal->release(item));
  item.regions = {"new"};
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  CHECK(item.tracked());
  CHECK(trace.count(Call::kRelease) == 0);
  finish(journal);
}

TEST_CASE("while one checkpoint is completed, the next one that is written waits for its turn") {
  LogWorld world;
  Trace trace;
  Probe slow(trace, 1), item(trace, 2);
  Gate gate;
  slow.during_committed = [&] { gate.pass(); };
  slow.regions = item.regions = {"x"};
  auto journal = world.open({.depth = 2});
  const Sequence first = commit(*journal, {&slow});
  std::thread force_first([&] { CHECK(journal->force(first).ok()); });
  gate.wait_for_arrival();
  const Sequence second = commit(*journal, {&item});
  std::thread force_second([&] { CHECK(journal->force(second).ok()); });
  let_others_run();
  CHECK(trace.count(Call::kCommitted) == 0);
  CHECK(journal->stable_sequence() < first);
  gate.open();
  force_first.join();
  force_second.join();
  finish(journal);
}

TEST_CASE("a force does not wait for a client that flushes what is home") {
  LogWorld world;
  Trace trace;
  Gate gate;
  JournalConfig config;
  config.flush_home = [&]() -> Status {
    gate.pass();
    return {};
  };
  auto journal = world.open(config);
  std::vector<std::unique_ptr<Probe>> others;
  fill(*journal, trace, others);
  gate.wait_for_arrival();
  Probe item(trace, 1);
  item.regions = {"small"};
  CHECK(journal->force(commit(*journal, {&item}), UINT64_MAX / 4).ok());
  gate.open();
  finish(journal);
}

TEST_CASE("the stats tell the longest hold of the AIL's lock by a batch of items") {
  // Each reading of the clock is a millisecond after the one before.
  class TickingDisk : public SimDisk {
   public:
    std::uint64_t monotonic_ns() override { return now_ns_ += 1'000'000; }

   private:
    std::atomic<std::uint64_t> now_ns_{0};
  };
  TickingDisk disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = Journal::open(kLogPath, {.stall_after_ns = UINT64_MAX}, kIgnore);
  REQUIRE(journal.ok());
  CHECK((*journal)->stats().ail_max_hold_ns == 0);
  REQUIRE((*journal)->force(commit(**journal, {&item})).ok());
  CHECK((*journal)->stats().ail_max_hold_ns >= 1'000'000);
  CHECK((*journal)->close().ok());
}
