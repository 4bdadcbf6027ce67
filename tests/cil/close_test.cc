// close(), and errors at every step: it ends, tells every item, and leaks nothing.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "probe.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("close() ends though homes answer for ever that they are locked") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  for (std::uint32_t i = 0; i < 40; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {"x"};
    items.back()->home = [](Probe&) { return PushResult::kLocked; };
    commit(*journal, {items.back().get()});
  }
  CHECK(journal->close().ok());
  CHECK(journal->close().ok());
  CHECK(trace.count(Call::kRelease) == items.size());
  journal.reset();
  CHECK(world.read().size() == 1);
}

TEST_CASE("close() after which nothing is to be replayed, if every item goes home when asked") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  Journal* at = journal.get();
  for (std::uint32_t i = 0; i < 40; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {"x"};
    items.back()->home = [at](Probe& item) {
      CHECK_FALSE(at->release(item));  // held by this very push
      return PushResult::kStarted;
    };
    commit(*journal, {items.back().get()});
  }
  finish(journal);
  CHECK(trace.count(Call::kRelease) == items.size());
  CHECK(world.read().empty());
}

TEST_CASE("a journal that is being closed is no shrinker of its pool any more") {
  // As many as a pool takes; the journal's is one, until close() has begun.
  struct Idle final : Shrinker {
    [[nodiscard]] const char* name() const override { return "idle"; }
    [[nodiscard]] Bytes count() const override { return Bytes(0); }
    Bytes scan(Bytes /*wanted*/) override { return Bytes(0); }
  };
  std::array<Idle, 32> idle;
  LogWorld world;  // before the pool, whose thread asks it for the time
  auto pool = Pool::create({.capacity_bytes = std::size_t{64} << 20});
  REQUIRE(pool.ok());
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open({.pool = pool->get()});
  const auto added = [&] {
    std::size_t count = 0;
    while (count < idle.size() && (*pool)->add_shrinker(idle[count]).ok()) {
      ++count;
    }
    for (std::size_t i = 0; i < count; ++i) {
      (*pool)->remove_shrinker(idle[i]);
    }
    return count;
  };
  CHECK(added() == idle.size() - 1);
  std::size_t while_closing = 0;
  Journal* at = journal.get();
  item.home = [&](Probe& self) {
    while_closing = added();
    CHECK_FALSE(at->release(self));
    return PushResult::kStarted;
  };
  commit(*journal, {&item});
  finish(journal);
  CHECK(while_closing == idle.size());
}

TEST_CASE("a thread that waits in begin() is refused when the journal is closed") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {std::string(150'000, 'x')};
  item.home = [](Probe&) { return PushResult::kLocked; };  // so the log is never quite hopeless
  std::vector<std::unique_ptr<Probe>> done;
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item}, 150'000)).ok());
  while (journal->stats().log_used.value() < journal->info().data.value() / 16 * 11) {
    done.push_back(std::make_unique<Probe>(trace, 2));
    done.back()->regions = {std::string(60'000, 'x')};
    done.back()->after = Tracking::kRelease;
    REQUIRE(journal->force(commit(*journal, {done.back().get()}, 60'000)).ok());
  }
  std::vector<std::thread> waiters;
  std::atomic<int> refused{0};
  std::atomic<int> began{0};
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] {
      ++began;
      const auto transaction = journal->begin(230'000, 1);
      refused += !transaction && transaction.error().code == Errc::kShutdown ? 1 : 0;
    });
  }
  yield_until([&] { return began == 3; });
  let_others_run();
  CHECK(journal->close().ok());
  for (std::thread& thread : waiters) {
    thread.join();
  }
  CHECK(refused == 3);
}

TEST_CASE("begin() during close() is refused, whatever credit its CPU has") {
  LogWorld world({.size = Bytes(64U << 20)});
  Trace trace;
  Probe item(trace, 1), last(trace, 2);
  item.regions = last.regions = {"x"};
  std::atomic<bool> waits{false};
  std::atomic<bool> closing{false};
  bool began_before = false;
  Errc refused = Errc::kNotFound;
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  const Status asked = journal->on_stable(sequence, [&](const Status&) {
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &here);
    REQUIRE(::sched_setaffinity(0, sizeof here, &here) == 0);
    began_before = journal->begin(100, 1).ok();  // the rest of what it was granted is credit
    waits = true;
    yield_until([&] { return closing.load(); });
    const auto transaction = journal->begin(100, 1);
    refused = transaction ? Errc::kNotFound : transaction.error().code;
  });
  REQUIRE(asked.ok());
  yield_until([&] { return waits.load(); });
  commit(*journal, {&last});
  world.disk.on_io([&](const SimIo& io) {  // close() forces what nobody has asked for
    closing = closing || io.op == SimOp::kWrite;
  });
  CHECK(journal->close().ok());
  CHECK(began_before);
  CHECK(refused == Errc::kShutdown);
  world.disk.on_io({});
  journal.reset();
}

TEST_CASE("in a forked child a journal is neither closed nor forced, and the parent's goes on") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const Status closed = journal->close();
    const Status forced = journal->force(sequence);
    const bool right = !closed && closed.error().code == Errc::kForked && !forced &&
                       forced.error().code == Errc::kForked;
    ::_exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(journal->force(sequence).ok());
  finish(journal);
  CHECK(world.read().size() == 1);
}

TEST_CASE("whichever I/O fails with several checkpoints in flight: all are told, nothing leaks") {
  constexpr std::size_t kLarge = 600'000;
  for (const SimOp op : {SimOp::kWrite, SimOp::kFlush, SimOp::kRingSubmit}) {
    bool clean = false;
    for (std::uint64_t nth = 1; !clean; nth += 1 + nth / test_rounds(16, 2)) {
      CAPTURE(nth);
      LogWorld world({.size = Bytes(64U << 20)});
      auto pool = Pool::create({.capacity_bytes = 64U << 20, .background = false});
      REQUIRE(pool.ok());
      Trace trace;
      std::vector<std::unique_ptr<Probe>> items;
      world.disk.inject({.op = op, .nth = nth, .for_good = nth % 2 == 0});
      auto opened = Journal::open(kLogPath, {.pool = pool->get(), .depth = 4}, kIgnore);
      if (!opened) {
        CHECK((*pool)->stats().live == Bytes(0));
        continue;
      }
      auto& journal = *opened;
      std::vector<std::thread> threads;
      for (std::uint32_t i = 0; i < 6; ++i) {
        items.push_back(std::make_unique<Probe>(trace, i));
        items.back()->regions = {std::string(kLarge, 'x')};
      }
      std::atomic<std::size_t> committed{0};
      for (std::size_t i = 0; i < items.size(); ++i) {
        threads.emplace_back([&, i] {
          for (int round = 0; round < 2; ++round) {
            auto transaction = journal->begin(kLarge, 1);
            if (!transaction) {
              return;
            }
            KEEL_CHECK(transaction->log(*items[i]).ok(), "log");
            const auto sequence = transaction->commit();
            committed += sequence ? 1 : 0;
            if (!sequence || !journal->force(*sequence).ok()) {
              return;
            }
          }
        });
      }
      for (std::thread& thread : threads) {
        thread.join();
      }
      clean = journal->close().ok() && world.disk.io_log().size() > 0 &&
              trace.count(Call::kAbort) == 0 && committed == 12;
      CHECK(trace.count(Call::kPin) == trace.count(Call::kUnpin) + trace.count(Call::kAbort));
      for (const auto& item : items) {
        CHECK_FALSE(item->pinned());
        CHECK_FALSE(item->tracked());
      }
      opened->reset();
      CHECK((*pool)->stats().live == Bytes(0));
      REQUIRE(nth <= 400);  // there are not so many: then none would be the last
    }
  }
}
