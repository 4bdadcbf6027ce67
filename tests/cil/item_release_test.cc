// What an item leaves behind, and when it leaves: released while a checkpoint has it, or ordered.
#include <doctest/doctest.h>

#include "log_vector.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("an item that is released while a checkpoint has it leaves when that is stable") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  CHECK_FALSE(journal->release(item));
  CHECK(trace.count(Call::kRelease) == 0);
  REQUIRE(journal->force(sequence).ok());
  CHECK_FALSE(item.tracked());
  CHECK(trace.count(Call::kRelease) == 1);
  journal->audit();
  finish(journal);
  CHECK(world.read().empty());
}

TEST_CASE("ordering an item that has no home keeps the snapshot that is stable in the log") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  const LogVector* snapshot = ItemAccess::shadow(item);
  REQUIRE(snapshot != nullptr);
  REQUIRE(snapshot->is_snapshot);
  item.is_ordered = true;
  const Sequence ordered = commit(*journal, {&item});
  CHECK(ItemAccess::shadow(item) == snapshot);
  CHECK(commit(*journal, {&item}) == ordered);  // once more in the same context
  CHECK(ItemAccess::shadow(item) == snapshot);
  REQUIRE(journal->force(ordered).ok());
  CHECK(ItemAccess::shadow(item) == snapshot);
  CHECK(snapshot->is_snapshot);
  journal->audit();
  CHECK(journal->release(item));
  finish(journal);
}

TEST_CASE("a cancelled transaction leaves an item that is ordered meanwhile its snapshot") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  Probe too_large(trace, 2);
  item.regions = {"x"};
  too_large.regions = {std::string(3000, 'y')};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  item.is_ordered = true;
  const Sequence ordered = commit(*journal, {&item});
  item.is_ordered = false;
  {
    auto transaction = journal->begin(1500, 2);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(item).ok());
    REQUIRE(transaction->log(too_large).ok());
    CHECK(transaction->commit().error().code == Errc::kReservationExceeded);
  }
  REQUIRE(journal->force(ordered).ok());
  const LogVector* snapshot = ItemAccess::shadow(item);
  REQUIRE(snapshot != nullptr);
  CHECK(snapshot->is_snapshot);  // or it could never be logged again, and would hold the tail
  journal->audit();
  CHECK(journal->release(item));
  finish(journal);
}

TEST_CASE("an item that is only ordered leaves no snapshot to be logged again from") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.is_ordered = true;
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  const LogVector* shadow = ItemAccess::shadow(item);
  CHECK((shadow == nullptr || !shadow->is_snapshot));
  journal->audit();
  finish(journal);
}
