// What the upkeep records before what is built on it, when it is asked, and what a failure of it
// means.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBytes = 60'000;
constexpr std::size_t kMost = 15;  // so many fill a small log
constexpr std::size_t kRoom = 150'000;

// Commits and forces items without a home until the log has no room for kRoom.
void fill(Journal& journal, Trace& trace, std::vector<std::unique_ptr<Probe>>& items) {
  for (std::uint32_t i = 0; i < kMost; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {std::string(kBytes, 'x')};
    REQUIRE(journal.force(commit(journal, {items.back().get()}, kBytes)).ok());
  }
}

}  // namespace

TEST_CASE("space behind the tail is granted only when the state slots say that it is free") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  fill(*journal, trace, items);
  Gate gate;
  world.disk.on_io([&](const SimIo& io) {
    const bool slot = io.offset == 4096 || io.offset == kMinLogBytes.value() - 2 * 4096;
    if (io.op == SimOp::kWrite && slot && !gate.arrived()) {
      gate.pass();
    }
  });
  for (std::size_t i = 0; i < 5; ++i) {
    (void)journal->release(*items[i]);  // or later, if a pass has it just now
  }
  std::atomic<bool> granted{false};
  std::thread waiter([&] { granted = journal->begin(kRoom, 1).ok(); });
  gate.wait_for_arrival();
  let_others_run();
  CHECK_FALSE(granted);
  gate.open();
  waiter.join();
  CHECK(granted);
  world.disk.on_io(nullptr);
  finish(journal);
}

TEST_CASE("a release asks for a pass of the upkeep if somebody waits for space") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  // No pass comes by itself.
  auto journal = world.open({.cover_after_ns = 3'600'000'000'000});
  fill(*journal, trace, items);
  auto transaction = journal->begin(1000, 1);  // so the log is not hopeless, and who waits waits
  REQUIRE(transaction.ok());
  std::atomic<bool> granted{false};
  std::thread waiter([&] { granted = journal->begin(kRoom, 1).ok(); });
  for (int i = 0; i < 5; ++i) {
    let_others_run();  // until the pass that it asks for is over
  }
  for (std::size_t i = 0; i < 5; ++i) {
    (void)journal->release(*items[i]);  // or later, if a pass has it just now
  }
  CHECK(soon([&] { return granted.load(); }));
  { const Transaction over = std::move(*transaction); }  // ends the wait in any case
  waiter.join();
  finish(journal);
}

TEST_CASE("a journal at rest whose state cannot be written is shut down, and no force succeeds") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open({.cover_after_ns = 1'000'000});
  // The checkpoint is written, the state that covers it is not; which nobody hears of before the
  // force has returned.
  std::atomic<bool> forced{false};
  world.disk.on_io([&](const SimIo& io) {
    if (io.faulty) {
      yield_until([&] { return forced.load(); });
    }
  });
  world.disk.inject({.op = SimOp::kWrite, .nth = 2, .for_good = true});
  const Sequence sequence = commit(*journal, {&item});
  const Status status = journal->force(sequence);
  forced = true;
  REQUIRE(status.ok());
  CHECK(soon([&] { return !journal->begin(100, 1).ok(); }));
  CHECK(journal->stable_sequence() == sequence);
  CHECK_FALSE(journal->force_all().ok());  // though all that was committed is stable
  CHECK_FALSE(journal->close().ok());
  world.disk.on_io({});
}

TEST_CASE("a log killed when it was almost full is recovered whole, though its tail never moved") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  const std::uint64_t most = journal->info().data.value() / 20 * 17;
  while (journal->stats().log_used.value() < most) {
    items.push_back(std::make_unique<Probe>(trace, 1));
    items.back()->regions = {std::string(20'000, 'x')};
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, 20'000)).ok());
  }
  CHECK(journal->stats().tail == Lsn(0));
  const SimContent image = world.disk.image(kLogPath);
  finish(journal);
  world.disk.set_image(kLogPath, image);
  CHECK(world.read().size() == items.size());
}
