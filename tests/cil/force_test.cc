// force(): who writes, who waits, and several checkpoints in flight.
#include <doctest/doctest.h>

#include <memory>
#include <thread>
#include <vector>

#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kLarge = 1500000;  // several writes and a flush

std::unique_ptr<Probe> large_item(Trace& trace, std::uint32_t id) {
  auto item = std::make_unique<Probe>(trace, id);
  item->regions = {random_bytes(id + 1, kLarge)};
  return item;
}

}  // namespace

TEST_CASE("a force with a timeout gives up in time though the write hangs, and the write goes on") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  Gate gate;
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && !gate.arrived()) {
      gate.pass();
    }
  });
  const Sequence sequence = commit(*journal, {&item});
  for (const std::uint64_t timeout_ns : {0U, 1'000'000U}) {
    const Status status = journal->force(sequence, timeout_ns);
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().code == Errc::kTimeout);
  }
  gate.open();
  CHECK(journal->force(sequence, UINT64_MAX - 1).ok());
  world.disk.on_io(nullptr);
  finish(journal);
}

TEST_CASE("a force by a thread with a transaction open calls no item on that thread") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), other(trace, 2);
  item.regions = {"x"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  auto transaction = journal->begin(100, 1);
  REQUIRE(transaction.ok());
  CHECK(journal->force(sequence).ok());
  CHECK(journal->force_all().ok());
  CHECK(transaction->commit().ok());
  finish(journal);
}

TEST_CASE("many threads may force a journal that has nothing new") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  REQUIRE(journal->force(sequence).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        CHECK(journal->force_all().ok());
        CHECK(journal->force(sequence).ok());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(journal->stats().checkpoints == 1);
  finish(journal);
}

TEST_CASE("checkpoints in flight are completed in order, though the first is written last") {
  for (const unsigned depth : {2U, 4U, 8U}) {
    CAPTURE(depth);
    LogWorld world({.size = Bytes(64U << 20)});
    Trace trace;
    std::vector<std::unique_ptr<Probe>> items;
    auto journal = world.open({.depth = depth});
    Gate gate;
    std::atomic<unsigned> flushes{0};
    world.disk.on_io([&](const SimIo& io) {
      if (io.op == SimOp::kFlush && flushes++ == 0) {
        gate.pass();  // the first that is to flush
      }
    });
    std::vector<std::thread> forcers;
    std::vector<Status> statuses(depth);
    std::atomic<unsigned> returned{0};
    for (unsigned i = 0; i < depth; ++i) {
      items.push_back(large_item(trace, i));
      const Sequence sequence = commit(*journal, {items.back().get()}, kLarge);
      forcers.emplace_back([&, i, sequence] {
        statuses[i] = journal->force(sequence);
        CHECK(journal->stable_sequence() >= sequence);
        ++returned;
      });
      yield_until([&] { return journal->stats().current > sequence; });
      if (i == 0) {
        gate.wait_for_arrival();
      }
    }
    yield_until([&] { return flushes == depth; });
    let_others_run();
    CHECK(journal->stats().in_flight == depth);
    CHECK(returned == 0);
    CHECK(trace.count(Call::kCommitted) == 0);
    gate.open();
    for (std::thread& thread : forcers) {
      thread.join();
    }
    for (const Status& status : statuses) {
      CHECK(status.ok());
    }
    world.disk.on_io(nullptr);
    journal->audit();
    finish(journal);
    CHECK(world.read().size() == depth);
  }
}

TEST_CASE("a checkpoint whose predecessor failed never becomes stable, nor is it acknowledged") {
  LogWorld world({.size = Bytes(64U << 20)});
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open({.depth = 4});
  Gate first, second;
  std::atomic<unsigned> flushes{0};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kFlush) {
      const unsigned n = flushes++;
      if (n < 2) {
        (n == 0 ? first : second).pass();
      }
    }
  });
  world.disk.inject({.op = SimOp::kFlush, .nth = 2});
  std::vector<std::thread> forcers;
  std::vector<Status> statuses(3);
  std::vector<Sequence> sequences;
  for (std::size_t i = 0; i < 3; ++i) {
    items.push_back(large_item(trace, static_cast<std::uint32_t>(i)));
    sequences.push_back(commit(*journal, {items.back().get()}, kLarge));
    const Sequence sequence = sequences.back();
    forcers.emplace_back([&, i, sequence] { statuses[i] = journal->force(sequence); });
    yield_until([&] { return flushes == i + 1; });
  }
  first.open();
  forcers[0].join();
  CHECK(statuses[0].ok());
  let_others_run();
  CHECK(journal->stable_sequence() == sequences[0]);
  second.open();
  forcers[1].join();
  forcers[2].join();
  CHECK_FALSE(statuses[1].ok());
  CHECK_FALSE(statuses[2].ok());
  CHECK(journal->stable_sequence() == sequences[0]);
  world.disk.on_io(nullptr);
  CHECK_FALSE(journal->close().ok());
  CHECK(trace.count(Call::kAbort) == 2);
  CHECK(trace.count(Call::kUnpin) == 1);
  CHECK(trace.count(Call::kReleaseAborted) == 3);
  CHECK(journal->stable_sequence() == sequences[0]);
}

TEST_CASE("a push that is asked for is made by a thread that sleeps, with nobody else to make it") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.after = Tracking::kRelease;
  item.regions = {"x"};
  auto journal = world.open({.depth = 1});
  for (int round = 0; round < 3; ++round) {
    const Sequence sequence = commit(*journal, {&item});
    let_others_run();  // the thread has gone to sleep
    // Who does not wait for ever only asks. (Fails by hanging.)
    REQUIRE(journal->force(sequence, UINT64_MAX - 1).ok());
  }
  finish(journal);
}
