// The room that intents hold: it comes back, and recovery knows how many can have had it.
#include <doctest/doctest.h>

#include <span>

#include "intents.h"
#include "keel/cil/intent_item.h"
#include "log/format.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("what an intent held comes back when its done is committed out of another grant") {
  LogWorld world;
  IntentItem intent(5, {});
  DoneItem done(intent);
  auto journal = world.open();
  {
    auto transaction = journal->begin(IntentItem::log_bytes(0), 1, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(intent).ok());
    REQUIRE(transaction->commit().ok());
  }
  REQUIRE(journal->force_all().ok());
  CHECK(journal->stats().log_held > Bytes(0));
  REQUIRE(journal->force(commit(*journal, {&done})).ok());
  CHECK(journal->stats().log_held == Bytes(0));
  CHECK(journal->stats().memory_held == Bytes(0));
  journal->audit();
  finish(journal);
}

TEST_CASE("more open intents than a log has room for are damage, and a done makes room for one") {
  IntentCollector collector(2);
  const auto add = [&collector](std::uint32_t type, std::uint64_t id) {
    const format::IntentHeader header{id, 0};
    const std::size_t bytes =
        type == format::kTypeIntent ? sizeof header : sizeof(format::DoneHeader);
    const RecoveredRegion region{{}, std::as_bytes(std::span(&header, 1)).first(bytes)};
    const RecoveredItem item(type, std::span(&region, 1));
    RecoveredCheckpoint checkpoint;
    checkpoint.items = std::span(&item, 1);
    return collector.add(checkpoint);
  };
  CHECK(add(format::kTypeIntent, 1).ok());
  CHECK(add(format::kTypeIntent, 2).ok());
  CHECK(add(format::kTypeIntent, 2).ok());  // logged again
  CHECK(add(format::kTypeDone, 1).ok());
  CHECK(add(format::kTypeIntent, 3).ok());
  const Status fourth = add(format::kTypeIntent, 4);
  REQUIRE_FALSE(fourth.ok());
  CHECK(fourth.error().code == Errc::kDamaged);
}
