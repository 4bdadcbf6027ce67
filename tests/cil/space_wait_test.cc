// A thread that waits in begin() is helped, and not told that the log is full while help is coming.
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "log_space.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a checkpoint that completes after the last pass gives a waiter hope of the next pass") {
  std::atomic<int> asked{0};
  LogSpace space({1000, 250, 0, 100}, Lsn(0), Lsn(0),
                 {[] {}, [&] { ++asked; }, [] { return Sequence{}; }});
  for (int i = 0; i < 4; ++i) {
    REQUIRE(space.reserve({10, 25}).ok());
  }
  CHECK(space.close_context(40, 40) == Lsn(0));
  Status status;
  std::thread waiter([&] { status = space.reserve({10, 20}); });
  yield_until([&] { return asked != 0; });
  space.pass_begins();
  space.pass_ended(false);  // before the checkpoint: nothing to be trimmed yet
  let_others_run();
  space.checkpoint_done();  // its snapshots now stand by
  let_others_run();
  CHECK(space.contended());
  space.pass_begins();
  space.free_memory(50);
  space.pass_ended(false);
  waiter.join();
  CHECK(status.ok());
}

TEST_CASE("whatever makes room wakes who waits for it") {
  using Act = void (*)(LogSpace&);
  struct Case {
    const char* name;
    Act fill;
    Act make_room;
  };
  const Act fill_context = [](LogSpace& space) { REQUIRE(space.reserve({250, 25}).ok()); };
  const Act fill_log = [](LogSpace& space) {
    for (int i = 0; i < 4; ++i) {
      REQUIRE(space.reserve({240, 0}).ok());
      (void)space.close_context(240, 240);
    }
  };
  const Case cases[] = {
      {"give_back", fill_context,
       [](LogSpace& space) {
         space.give_back({250, 0});
       }},
      {"close_context", fill_context, [](LogSpace& space) { (void)space.close_context(250, 250); }},
      {"drop_context", fill_context, [](LogSpace& space) { space.drop_context(250); }},
      {"tail_moved", fill_log, [](LogSpace& space) { space.tail_moved(Lsn(480)); }},
      {"free_memory",
       [](LogSpace& space) {
         for (int i = 0; i < 4; ++i) {
           REQUIRE(space.reserve({10, 25}).ok());
         }
       },
       [](LogSpace& space) { space.free_memory(50); }},
      {"drop_held",
       [](LogSpace& space) {
         for (int i = 0; i < 4; ++i) {
           REQUIRE(space.reserve({240, 10}).ok());
           space.hold({240, 10});
         }
       },
       [](LogSpace& space) {
         space.drop_held({240, 10});
       }},
  };
  for (const Case& one : cases) {
    CAPTURE(std::string(one.name));
    std::atomic<int> asked{0};
    LogSpace space({1000, 250, 0, 100}, Lsn(0), Lsn(0),
                   {[] {}, [&] { ++asked; }, [] { return Sequence{}; }});
    one.fill(space);
    Status status;
    std::atomic<bool> returned{false};
    std::thread waiter([&] {
      status = space.reserve({100, 20});
      returned = true;
    });
    yield_until([&] { return asked != 0; });
    let_others_run();  // until it sleeps
    one.make_room(space);
    CHECK(soon([&] { return returned.load(); }));
    space.fail({Errc::kShutdown, 0, "the test is over", 0});
    waiter.join();
    CHECK(status.ok());
  }
}

TEST_CASE("who waits gets what processors keep as credit") {
  LogSpace* at = nullptr;
  std::uint64_t credit = 200;
  LogSpace space({1000, 250, 0, 100}, Lsn(0), Lsn(0),
                 {[&] {
                    at->give_back({std::exchange(credit, 0), 0});
                  },
                  [&] {
                    at->pass_begins();
                    at->pass_ended(false);
                  },
                  [] { return Sequence{}; }});
  at = &space;
  REQUIRE(space.reserve({credit, 0}).ok());
  Status status;
  std::atomic<bool> returned{false};
  std::thread waiter([&] {
    status = space.reserve({100, 0});
    returned = true;
  });
  CHECK(soon([&] { return returned.load(); }));
  space.fail({Errc::kShutdown, 0, "the test is over", 0});
  waiter.join();
  CHECK(status.ok());
}

TEST_CASE("room that comes while a waiter looks whether there is something to push is not missed") {
  std::atomic<bool> looking{false};
  LogSpace* at = nullptr;
  LogSpace space({1000, 250, 0, 100}, Lsn(0), Lsn(0),
                 {[] {},
                  [&] {
                    at->pass_begins();
                    at->pass_ended(false);
                  },
                  [&] {
                    looking = true;
                    let_others_run();
                    return Sequence{};
                  }});
  at = &space;
  for (int i = 0; i < 4; ++i) {
    REQUIRE(space.reserve({10, 25}).ok());
  }
  Status status;
  std::atomic<bool> returned{false};
  std::thread waiter([&] {
    status = space.reserve({10, 20});
    returned = true;
  });
  yield_until([&] { return looking.load(); });
  space.free_memory(20);
  CHECK(soon([&] { return returned.load(); }));
  space.fail({Errc::kShutdown, 0, "the test is over", 0});
  waiter.join();
  CHECK(status.ok());
}

TEST_CASE("begin() waits for memory that standby snapshots take, and is never refused for it") {
  LogWorld world({.size = Bytes(64U << 20)});
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open({.cil_memory = Bytes(1U << 20)});
  // A slow disk: checkpoints complete long after the pass that was asked for with them.
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite) {
      let_others_run();
    }
  });
  for (std::uint32_t i = 0; i < 300; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {std::string(30'000, 'x')};
    commit(*journal, {items.back().get()}, 30'000);
    if (i % 32 == 0) {
      CHECK(journal->stats().memory <= Bytes(1U << 20));
    }
  }
  world.disk.on_io(nullptr);
  REQUIRE(journal->force_all().ok());
  journal->audit();
  finish(journal);
}

namespace {

// A transaction has all snapshots when it cannot be committed as it is; somebody waits for the
// memory that only those can give when `end` is told of the items, and then it is over.
Status wait_beside_refused(
    const std::function<void(Transaction&, std::vector<std::unique_ptr<Probe>>&)>& end) {
  LogWorld world({.size = Bytes(4U << 20)});
  Trace trace;
  auto journal = world.open({.cil_memory = Bytes(1'200'000)});
  constexpr std::size_t kBytes = 100'000;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t id = 1; id <= 9; ++id) {
    items.push_back(std::make_unique<Probe>(trace, id));
    items.back()->regions = {std::string(kBytes, 'x')};
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, kBytes + 1000)).ok());
    items.back()->regions = {"y"};
  }
  items.push_back(std::make_unique<Probe>(trace, 10));
  items.back()->regions = {std::string(3'000, 'x')};  // too large
  Status begun;
  std::thread waiter;
  {
    auto transaction = journal->begin(1'500, 10);
    REQUIRE(transaction.ok());
    for (const auto& item : items) {
      REQUIRE(transaction->log(*item).ok());
    }
    const auto refused = transaction->commit();
    REQUIRE_FALSE(refused.ok());
    REQUIRE(refused.error().code == Errc::kReservationExceeded);
    waiter = std::thread([&] {
      const auto granted = journal->begin(110'000, 1);
      begun = granted ? Status{} : Status(granted.error());
    });
    let_others_run();
    end(*transaction, items);
  }
  waiter.join();
  journal->audit();
  finish(journal);
  return begun;
}

}  // namespace

TEST_CASE("snapshots that a cancelled transaction gives back are looked at for who wants memory") {
  CHECK(wait_beside_refused([](auto&, auto&) {}).ok());
}

TEST_CASE("snapshots that a commit of nothing gives back are looked at for who wants memory") {
  const Status begun = wait_beside_refused([](Transaction& transaction, auto& items) {
    for (const auto& item : items) {
      item->regions = {};
    }
    CHECK(transaction.commit().ok());
  });
  CHECK(begun.ok());
}
