// Transactions: what they reserve, how they fail, what failing leaves behind.
#include <doctest/doctest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/scopes.h"
#include "keel/cil/object_item.h"
#include "log/format.h"
#include "probe.h"
#include "support/death.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a transaction that is destroyed journals nothing and gives its space back") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  {
    auto transaction = journal->begin(1000, 2);
    REQUIRE(transaction.ok());
    CHECK(NoReclaimScope::active());
    CHECK(journal->stats().log_reserved.value() > 1000);
    CHECK(transaction->log(item).ok());
  }
  CHECK_FALSE(NoReclaimScope::active());
  CHECK(journal->stats().log_reserved == Bytes(0));
  CHECK(trace.take().empty());
  CHECK(journal->force_all().ok());
  CHECK(journal->stats().checkpoints == 0);
  // The item is free for the next one.
  commit(*journal, {&item});
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, {"x"}}}}});
}

TEST_CASE("a commit ends the reclaim scope and the reservation") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  auto transaction = journal->begin(1000, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(item).ok());
  REQUIRE(transaction->commit().ok());
  CHECK(journal->stats().log_reserved == Bytes(0));
  finish(journal);
}

TEST_CASE("more items than begun for are refused, the transaction goes on without them") {
  LogWorld world;
  Trace trace;
  Probe a(trace, 1), b(trace, 2), c(trace, 3);
  a.regions = b.regions = c.regions = {"x"};
  auto journal = world.open();
  auto transaction = journal->begin(1000, 2);
  REQUIRE(transaction.ok());
  CHECK(transaction->log(a).ok());
  CHECK(transaction->log(b).ok());
  const Status third = transaction->log(c);
  REQUIRE_FALSE(third.ok());
  CHECK(third.error().code == Errc::kReservationExceeded);
  CHECK(transaction->log(a).ok());
  CHECK(transaction->commit().ok());
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, {"x"}}, {18, {"x"}}}}});
}

TEST_CASE(
    "more bytes than begun for are refused with nothing changed, it may try again or cancel") {
  LogWorld world;
  Trace trace;
  Probe small(trace, 1), item(trace, 2);
  small.regions = {"small"};
  auto journal = world.open();
  for (const bool again : {true, false}) {
    CAPTURE(again);
    const JournalStats before = journal->stats();
    auto transaction = journal->begin(100, 2);
    REQUIRE(transaction.ok());
    item.regions = {std::string(60000, 'x')};
    CHECK(transaction->log(small).ok());
    CHECK(transaction->log(item).ok());
    for (int i = 0; i < 2; ++i) {
      const auto sequence = transaction->commit();
      REQUIRE_FALSE(sequence.ok());
      CHECK(sequence.error().code == Errc::kReservationExceeded);
    }
    CHECK_FALSE(item.pinned());
    CHECK_FALSE(small.pinned());
    CHECK(trace.count(Call::kFormat) == 0);
    const JournalStats after = journal->stats();
    CHECK(after.transactions == before.transactions);
    CHECK(after.log_used == before.log_used);
    CHECK(after.log_reserved.value() > 0);
    if (again) {
      item.regions = {"y"};
      CHECK(transaction->commit().ok());
      CHECK(journal->force_all().ok());
      (void)trace.take();
    }
  }
  CHECK(journal->stats().log_reserved == Bytes(0));
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, {"small"}}, {18, {"y"}}}}});
}

TEST_CASE("a second transaction on one thread is a reported bug, another thread may have one") {
  LogWorld world;
  auto journal = world.open();
  auto transaction = journal->begin(100, 1);
  REQUIRE(transaction.ok());
  {
    const BugCounter bugs;
    const auto nested = journal->begin(100, 1);
    REQUIRE_FALSE(nested.ok());
    CHECK(nested.error().code == Errc::kInvalidArgument);
    CHECK(bugs.count(Bug::kNestedTransaction) == 1);
  }
  bool other = false;
  std::thread([&] { other = journal->begin(100, 1).ok(); }).join();
  CHECK(other);
  CHECK(transaction->commit().ok());
  CHECK(journal->begin(100, 1).ok());
  finish(journal);
}

TEST_CASE("what can never fit is refused in begin") {
  LogWorld world;
  auto journal = world.open();
  const std::uint64_t most = journal->info().max_checkpoint.value();
  for (const auto& [bytes, items] : std::vector<std::pair<std::size_t, std::uint32_t>>{
           {most, 1}, {most + 1, 1}, {SIZE_MAX, 1}, {0, UINT32_MAX}, {1, 200000}}) {
    const auto transaction = journal->begin(bytes, items);
    REQUIRE_FALSE(transaction.ok());
    CHECK(transaction.error().code == Errc::kTooLarge);
  }
  const auto none = journal->begin(100, 0);
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().code == Errc::kInvalidArgument);
  CHECK(journal->stats().log_reserved == Bytes(0));
  CHECK(journal->begin(most - 32768, 1).ok());
  finish(journal);
}

TEST_CASE("every log that can be made can journal something") {
  SimDisk disk;
  const ScopedOs scope(disk);
  for (const std::uint64_t most : {4096U, 8192U, 16384U, 32768U}) {
    const std::string path = "/sim/log" + std::to_string(most);
    const auto made = create_log(path, {.size = kMinLogBytes, .max_checkpoint = Bytes(most)});
    if (!made.ok()) {
      CHECK(made.error().code == Errc::kInvalidArgument);
      CHECK_FALSE(disk.exists(path));
      continue;
    }
    auto journal = Journal::open(path, {}, kIgnore);
    REQUIRE(journal.ok());
    Trace trace;
    Probe item(trace, 1);
    item.regions = {"x"};
    CHECK((*journal)->force(commit(**journal, {&item}, 1)).ok());
    CHECK((*journal)->close().ok());
  }
}

TEST_CASE("a sequence that has not begun cannot be forced, an empty one needs no write") {
  LogWorld world;
  auto journal = world.open();
  CHECK(journal->force(Sequence(0)).ok());
  CHECK(journal->force(Sequence(1)).ok());
  CHECK(journal->force_all().ok());
  for (const std::uint64_t sequence : {std::uint64_t{2}, std::uint64_t{100}, UINT64_MAX}) {
    const Status status = journal->force(Sequence(sequence));
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().code == Errc::kFutureSequence);
    CHECK(status.error().value == 1);
  }
  CHECK(journal->stats().checkpoints == 0);
  CHECK(journal->stats().writes == 0);
  finish(journal);
}

TEST_CASE("an item that allocates in format() is reported: from the pool, and with operator new") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  {
    const BugCounter bugs;
    item.during_format = [] { CHECK(kvmalloc(100) == nullptr); };
    commit(*journal, {&item});
    CHECK(bugs.count(Bug::kAllocationInNoAllocScope) == 1);
    item.during_format = [] { ::operator delete(::operator new(8)); };
    commit(*journal, {&item});
    CHECK(bugs.count(Bug::kAllocationInNoAllocScope) == 2);
    item.during_format = [&] { CHECK(NoAllocScope::active()); };
    item.during_size = [&] { CHECK_FALSE(NoAllocScope::active()); };
    commit(*journal, {&item});
    CHECK_FALSE(NoAllocScope::active());
  }
  item.during_format = nullptr;
  item.during_size = nullptr;
  finish(journal);
}

TEST_CASE("whatever a transaction's bytes are split into, what begin reserved is enough") {
  LogWorld world({.size = Bytes(16U << 20)});
  Trace trace;
  auto journal = world.open();
  const std::uint64_t most = journal->info().max_checkpoint.value();
  std::uint64_t random = test_seed("worst case", 8);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::unique_ptr<Probe>> items;
    std::vector<LogItem*> pointers;
    std::size_t bytes = 0;
    const std::size_t count = 1 + sim_random(random) % (round % 10 == 0 ? 1000 : 20);
    for (std::size_t i = 0; i < count; ++i) {
      items.push_back(std::make_unique<Probe>(trace, 1));
      items.back()->after = Tracking::kRelease;
      pointers.push_back(items.back().get());
      const std::size_t regions = 1 + sim_random(random) % 4;
      for (std::size_t r = 0; r < regions && bytes < most / 2; ++r) {
        const std::uint64_t draw = sim_random(random);
        const std::size_t kinds[] = {draw % 3, draw % 100, 4095, 4096, 4097, draw % 60000};
        items.back()->regions.emplace_back(kinds[draw / 65536 % 6], 'x');
        bytes += items.back()->regions.back().size();
      }
    }
    commit(*journal, pointers, bytes);  // exactly what they add up to
    REQUIRE(journal->force_all().ok());
  }
  finish(journal);
}

TEST_CASE("destroying an item in use is a reported bug") {
  LogWorld world;
  // All in the child: a child's copy of its parent's item would be none of its business.
  const auto destroy = [](bool forced) {
    return run_in_child([forced] {
      auto pool = Pool::create({.capacity_bytes = std::size_t{64} << 20});
      JournalConfig config;
      config.pool = pool->get();
      const auto journal = Journal::open(kLogPath, config, kIgnore);
      Trace trace;
      auto item = std::make_unique<Probe>(trace, 2);
      item->regions = {"x"};
      const Sequence sequence = commit(**journal, {item.get()});
      if (forced) {
        (void)(*journal)->force(sequence);
      }
      item.reset();
    });
  };
  CHECK(destroy(false).aborted_with("in use"));  // in the context
  CHECK(destroy(true).aborted_with("in use"));   // in the log
}

TEST_CASE("an item may go once it is released, and a forked child's copy at any time") {
  LogWorld world;
  Trace trace;
  auto journal = world.open();
  auto item = std::make_unique<Probe>(trace, 2);
  item->regions = {"x"};
  commit(*journal, {item.get()});
  CHECK_FALSE(journal->release(*item));
  CHECK(run_in_child([&] { item.reset(); }).exit_code == 0);
  CHECK(journal->force_all().ok());
  CHECK(journal->release(*item));
  item.reset();
  // One that has been named, and never committed yet.
  auto named = std::make_unique<Probe>(trace, 3);
  {
    auto transaction = journal->begin(100, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(*named).ok());
    CHECK(run_in_child([&] { named.reset(); }).exit_code == 0);
  }
  finish(journal);
}

TEST_CASE("a forked child is told nothing of a journal, and waits for none of its locks") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  Gate gate;
  auto journal = world.open();
  item.during_format = [&] { gate.pass(); };
  std::thread committer([&] { commit(*journal, {&item}); });
  gate.wait_for_arrival();  // with the context lock
  CHECK(run_in_child([&] {
          const JournalStats stats = journal->stats();
          journal->audit();
          journal->release_recovered();
          const bool no_info = journal->info().data == Bytes(0);
          ::_exit(stats.transactions == 0 && no_info ? 0 : 1);
        }).exit_code == 0);
  gate.open();
  committer.join();
  finish(journal);
}

TEST_CASE("what items are charged for is never less than what their checkpoint takes") {
  std::uint64_t random = test_seed("cost", 12);
  for (const std::uint64_t block : {4096U, 16384U, 65536U}) {
    for (std::uint64_t round = 0; round < test_rounds(3000, 10); ++round) {
      std::uint64_t packed = 0, bulk = 0, cost = format::checkpoint_unit(block);
      const std::uint64_t items = sim_random(random) % 50;
      const std::uint64_t range = round % 2 == 0 ? 100 : 200000;
      for (std::uint64_t i = 0; i < items; ++i) {
        const std::uint64_t item_packed = 8 * (sim_random(random) % range);
        const std::uint64_t item_bulk = sim_random(random) % 4 == 0 ? sim_random(random) % 300 : 0;
        packed += item_packed;
        bulk += item_bulk;
        cost += format::checkpoint_cost(item_packed, item_bulk, block);
      }
      REQUIRE(cost >= format::checkpoint_shape(packed, bulk, block).bytes);
    }
  }
}

TEST_CASE("a transaction that is too large is so whatever credit there is beside") {
  LogWorld world({.size = Bytes(64U << 20)});
  auto journal = world.open({.cil_memory = Bytes(8U << 20)});
  const auto alone = journal->begin(1'500'000, 1);  // needs more than a quarter of cil_memory
  REQUIRE_FALSE(alone.ok());
  CHECK(alone.error().code == Errc::kTooLarge);
  finish(journal);
}
