// The watchdog on transactions that cannot begin: what has the room that they wait for, and who
// holds that. A report that must come is waited for: its test fails by hanging.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "watchdog_world.h"

using namespace keel;
using namespace keel_test;

namespace {

using What = StallReport::What;
using WaitsFor = StallReport::WaitsFor;

}  // namespace

TEST_CASE("a begin on a full log whose items are locked is reported with them and the tail") {
  LogWorld world;
  StallReports reports;
  Trace trace;
  std::atomic<bool> locked{true};
  auto journal = world.open(reports.config(kLongDeadlineNs));
  std::vector<std::unique_ptr<Probe>> items;
  std::atomic<bool> full{false};
  std::thread filler([&] {
    for (std::uint32_t i = 0; i < 60; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(30000, 'x')};
      items.back()->home = [&](Probe& item) {
        if (locked) {
          return PushResult::kLocked;
        }
        (void)journal->release(item);
        return PushResult::kStarted;
      };
      commit(*journal, {items.back().get()}, 31000);
    }
    full = true;
  });
  const StallReport begin = reports.wait_for(What::kBegin);
  CHECK_FALSE(full);
  CHECK(begin.waits_for == WaitsFor::kTail);
  CHECK(begin.lsn == journal->stats().tail);
  CHECK(begin.items_at_tail >= 1);
  REQUIRE(begin.holder_count >= 1);
  CHECK(begin.holders[0].type == 16);  // the first
  let_it_look(kLongDeadlineNs);
  CHECK(reports.count(What::kBegin) == 1);
  CHECK(reports.line(What::kBegin, WaitsFor::kTail).find("held by") != std::string::npos);
  locked = false;
  filler.join();
  finish(journal);
}

TEST_CASE("a begin behind a client's push() that hangs names the item's type") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  auto journal = world.open(reports.config(kLongDeadlineNs));
  std::vector<std::unique_ptr<Probe>> items;
  gate.close();
  std::thread filler([&] {
    for (std::uint32_t i = 0; i < 60; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(30000, 'x')};
      items.back()->home = [&](Probe& item) {
        gate.pass();
        (void)journal->release(item);
        return PushResult::kStarted;
      };
      commit(*journal, {items.back().get()}, 31000);
    }
  });
  const StallReport begin = reports.wait_for(What::kBegin);
  CHECK(begin.waits_for == WaitsFor::kClientPush);
  REQUIRE(begin.holder_count == 1);
  CHECK(begin.holders[0].type == 16);
  gate.open();
  filler.join();
  finish(journal);
}

TEST_CASE("a begin behind open transactions is reported with which room they have taken") {
  for (const bool memory : {false, true}) {
    LogWorld world;
    StallReports reports;
    JournalConfig config = reports.config();
    config.cil_memory = Bytes(memory ? 130'000 : 0);
    auto journal = world.open(config);
    {
      const OpenTransactions open(*journal, memory ? 10'000 : 20'000);
      const StallReport begin = reports.wait_for(What::kBegin);
      CHECK(begin.waits_for == (memory ? WaitsFor::kMemory : WaitsFor::kOpenTransactions));
      CHECK(begin.holder_count == 0);
    }
    finish(journal);
  }
}

TEST_CASE("a begin on a full log is reported with the ids of the objects that hold it") {
  struct Locked : ObjectItem {
    explicit Locked(std::uint64_t id) : ObjectItem(id) {}
    bool has_home() const override { return true; }
    PushResult push() override {
      if (locked) {
        return PushResult::kLocked;
      }
      (void)journal->release(*this);
      return PushResult::kStarted;
    }
    std::atomic<bool> locked{true};
    Journal* journal = nullptr;
  };
  LogWorld world;
  StallReports reports;
  Trace trace;
  Locked object(4711);
  const std::string bytes = "an object";
  object.set(bytes.data(), bytes.size());
  Probe item(trace, 1);
  item.after = Tracking::kRelease;
  item.regions = {std::string(30'000, 'x')};
  auto journal = world.open(reports.config(kLongDeadlineNs));
  object.journal = journal.get();
  REQUIRE(journal->force(commit(*journal, {&object})).ok());
  std::thread filler([&] {
    for (int i = 0; i < 60; ++i) {
      CHECK(journal->force(commit(*journal, {&item}, 31'000)).ok());
    }
  });
  const StallReport begin = reports.wait_for(What::kBegin);
  CHECK(begin.waits_for == WaitsFor::kTail);
  CHECK(begin.items_at_tail == 1);
  REQUIRE(begin.holder_count == 1);
  CHECK(begin.holders[0].type == 1);
  CHECK(begin.holders[0].id == 4711);
  object.locked = false;
  filler.join();
  finish(journal);
}

TEST_CASE("a begin with several checkpoints in flight is reported with the oldest of them") {
  struct Slow : Probe {
    Slow(Trace& trace, std::uint32_t id, ClosableGate& at) : Probe(trace, id), gate(at) {}
    Tracking committed(Lsn) override {
      gate.pass();
      return Tracking::kTrack;
    }
    ClosableGate& gate;
  };
  // The older of the two may have either place among those that are in flight.
  for (const bool first_ends : {false, true}) {
    CAPTURE(first_ends);
    LogWorld world;
    StallReports reports;
    ClosableGate first_gate, second_gate;
    Trace trace;
    Slow first(trace, 1, first_gate), second(trace, 2, second_gate);
    Probe third(trace, 3);
    first.regions = second.regions = third.regions = {"x"};
    JournalConfig config = reports.config();
    config.depth = 2;
    auto journal = world.open(config);
    first_gate.close();
    second_gate.close();
    std::vector<std::thread> forcers;
    const auto force = [&](LogItem& item) {
      const Sequence sequence = commit(*journal, {&item});
      forcers.emplace_back([&, sequence] { CHECK(journal->force(sequence).ok()); });
      return sequence;
    };
    const auto both_in_flight = [&] {
      while (journal->stats().in_flight != 2) {
        std::this_thread::yield();
      }
    };
    Sequence oldest = force(first);
    (void)reports.wait_for(What::kPush, oldest, WaitsFor::kCompletion);
    const Sequence behind = force(second);
    both_in_flight();
    if (first_ends) {
      first_gate.open();
      (void)reports.wait_for(What::kPush, behind, WaitsFor::kCompletion);
      oldest = behind;
      (void)force(third);
      both_in_flight();
    }
    {
      const OpenTransactions open(*journal, 20'000);
      const StallReport begin = reports.wait_for(What::kBegin);
      CHECK(begin.waits_for == WaitsFor::kCompletion);
      CHECK(begin.lsn == reports.wait_for(What::kPush, oldest, WaitsFor::kCompletion).lsn);
    }
    first_gate.open();
    second_gate.open();
    for (std::thread& forcer : forcers) {
      forcer.join();
    }
    finish(journal);
  }
}
