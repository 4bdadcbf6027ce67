// A callback that is under way when close() begins.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "keel/base/check.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("what a callback commits while close() waits for it is in the log") {
  LogWorld world;
  Trace trace;
  Probe first(trace, 1), last(trace, 2), late(trace, 3);
  first.regions = last.regions = {"x"};
  late.regions = {"late"};
  std::atomic<bool> waits{false};
  std::atomic<bool> closing{false};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&first});
  const Status asked = journal->on_stable(sequence, [&](const Status&) {
    auto transaction = journal->begin(100, 1);
    KEEL_CHECK(transaction.ok(), "begin");
    waits = true;
    yield_until([&] { return closing.load(); });
    KEEL_CHECK(transaction->log(late).ok(), "log");
    KEEL_CHECK(transaction->commit().ok(), "commit");
  });
  REQUIRE(asked.ok());
  yield_until([&] { return waits.load(); });
  commit(*journal, {&last});
  world.disk.on_io([&](const SimIo& io) {  // close() forces what nobody has asked for
    closing = closing || io.op == SimOp::kWrite;
  });
  CHECK(journal->close().ok());
  world.disk.on_io(nullptr);
  journal.reset();
  const Found found = world.read();
  REQUIRE_FALSE(found.empty());
  CHECK(found.back() == FoundCheckpoint{3, {{19, {"late"}}}});
}

TEST_CASE("what a refused callback has captured goes without a lock, and may call the journal") {
  struct Caller {
    explicit Caller(Journal& of) : journal(of) {}
    ~Caller() { (void)journal.stats(); }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;
    Journal& journal;
  };
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  std::atomic<bool> refused{false};
  const Status asked = journal->on_stable(commit(*journal, {&item}), [&](const Status&) {
    while (!refused) {
      auto caller = std::make_shared<Caller>(*journal);
      const Status status =
          journal->on_stable(Sequence(1), [held = std::move(caller)](const Status&) {});
      refused = !status.ok() && status.error().code == Errc::kShutdown;
      std::this_thread::yield();
    }
  });
  REQUIRE(asked.ok());
  CHECK(journal->close().ok());
  CHECK(refused);
}
