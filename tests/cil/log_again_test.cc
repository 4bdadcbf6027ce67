// Items without a home that hold the tail are logged again, whatever the sizes and whoever is in
// the way: begin() never calls a log full that is not.
#include <doctest/doctest.h>

#include <memory>
#include <thread>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

// One that stays, at the beginning of the log, and one that leaves it at once.
struct Items {
  explicit Items(Journal& journal) {
    stays.set("stays", 5);
    commit(journal, {&stays}, ObjectItem::log_bytes(5));
    other.regions = {"x"};
    other.after = Tracking::kRelease;
  }
  Trace trace;
  ObjectItem stays{1};
  Probe other{trace, 2};
};

}  // namespace

TEST_CASE("an item without a home is logged again however small checkpoints are") {
  for (std::uint64_t blocks = 4; blocks <= 9; ++blocks) {
    CAPTURE(blocks);
    LogWorld world({.size = kMinLogBytes, .max_checkpoint = Bytes(blocks * 4096)});
    auto journal = world.open();
    Items items(*journal);
    for (int i = 0; i < 600; ++i) {  // more than twice round the log
      auto transaction = journal->begin(100, 1);
      if (!transaction) {
        FAIL(transaction.error().message() << " after " << i);
      }
      REQUIRE(transaction->log(items.other).ok());
      const auto sequence = transaction->commit();
      REQUIRE(sequence.ok());
      REQUIRE(journal->force(*sequence).ok());
      (void)items.trace.take();
    }
    finish(journal);
  }
}

TEST_CASE("an item that wrote nothing is logged again too") {
  LogWorld world;
  Trace trace;
  Probe empty(trace, 1), other(trace, 2);
  empty.sized = {10};
  other.regions = {"x"};
  other.after = Tracking::kRelease;
  auto journal = world.open();
  commit(*journal, {&empty});
  for (int i = 0; i < 600; ++i) {  // more than twice round the log
    auto transaction = journal->begin(100, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(other).ok());
    const auto sequence = transaction->commit();
    REQUIRE(sequence.ok());
    REQUIRE(journal->force(*sequence).ok());
    (void)trace.take();
  }
  CHECK(empty.tracked());
  finish(journal);
}

TEST_CASE(
    "a transaction that kept others from logging again, and is cancelled, leaves no full log") {
  LogWorld world;
  auto journal = world.open();
  Items items(*journal);
  const std::uint64_t most = journal->info().max_checkpoint.value();
  const std::uint64_t room = journal->info().data.value() - journal->stats().log_set_aside.value();
  while (journal->stats().log_used.value() + most <= room) {
    REQUIRE(journal->force(commit(*journal, {&items.other})).ok());
    (void)items.trace.take();
  }
  // The first leaves a checkpoint no room for anything else, the second needs the tail to move even
  // when the first is gone.
  auto first = std::make_unique<Result<Transaction>>(journal->begin(most - 25'000, 1));
  REQUIRE(first->ok());
  Status second;
  std::thread waiter([&] {
    const auto begun = journal->begin(most - 15'000, 1);
    second = begun ? Status{} : Status(begun.error());
  });
  // Until it waits, and some pass of the upkeep has found no room: later ones change nothing.
  let_others_run();
  first.reset();
  waiter.join();
  CHECK(second.ok());
  finish(journal);
}

namespace {

// An item without a home stands at the tail and is in a checkpoint under way that only orders it,
// when somebody waits for `wanted`; no more than `slack` is free beyond what he could have.
void order_what_holds_the_tail(std::uint64_t slack, std::size_t wanted) {
  LogWorld world;
  Trace trace;
  auto journal = world.open();
  Probe oldest(trace, 1), other(trace, 2);
  oldest.regions = {std::string(40'000, 'x')};
  REQUIRE(journal->force(commit(*journal, {&oldest}, 41'000)).ok());
  std::vector<std::unique_ptr<Probe>> next;
  for (std::uint32_t id = 3; id < 13; ++id) {
    next.push_back(std::make_unique<Probe>(trace, id));
    next.back()->regions = {std::string(8'000, 'z')};
    REQUIRE(journal->force(commit(*journal, {next.back().get()}, 9'000)).ok());
  }
  other.regions = {"x"};
  other.after = Tracking::kRelease;
  const std::uint64_t data = journal->info().data.value();
  const auto free = [&] {
    return data - journal->stats().log_used.value() - journal->stats().log_set_aside.value();
  };
  constexpr std::size_t kUnit = 12'600;  // what a checkpoint takes beside its bytes, and a little
  while (free() >= kUnit + slack) {
    REQUIRE(journal->force(commit(*journal, {&other}, 100)).ok());
    (void)trace.take();
  }
  Gate gate;
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && !gate.arrived()) {
      gate.pass();
    }
  });
  oldest.is_ordered = true;
  const Sequence ordered = commit(*journal, {&oldest}, 100);
  std::thread forcer([&] { CHECK(journal->force(ordered).ok()); });
  gate.wait_for_arrival();
  Status begun;
  std::thread waiter([&] {
    const auto transaction = journal->begin(wanted, 1);
    begun = transaction ? Status{} : Status(transaction.error());
  });
  let_others_run();  // Some pass of the upkeep has looked.
  gate.open();
  forcer.join();
  waiter.join();
  CHECK(begun.ok());
  world.disk.on_io(nullptr);
  journal->audit();
  finish(journal);
}

}  // namespace

TEST_CASE("while what holds the tail is only ordered, nothing behind it takes what it may need") {
  SUBCASE("with hardly any room") { order_what_holds_the_tail(4096, 100); }
  SUBCASE("with some") { order_what_holds_the_tail(24'000, 40'000); }
}
