// Items without a home that hold the tail are logged again however much one checkpoint holds of
// them, and however little each of many: a log is full only when what lives fills it.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/follower.h"
#include "keel/cil/intent_item.h"
#include "lasting_life.h"
#include "probe.h"
#include "space.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("small items without a home that fill one large checkpoint are all logged again") {
  Life life;
  std::vector<LogItem*> together;
  for (std::uint64_t i = 0; i < 200; ++i) {
    together.push_back(&life.make(random_bytes(i, 900)));
  }
  const std::uint64_t least = life.journal->stats().log_set_aside.value();
  take(life.put(together, 200 * 900));
  CHECK(200 * 900 > least);
  CHECK(life.journal->stats().log_set_aside.value() > std::uint64_t{200} * 900);
  CHECK(life.go_round(6, 30'000));
  life.note_moment();
  // Once none is left and the tail has passed them, no more is set aside than before.
  for (LogItem* item : together) {
    (void)life.journal->release(*item);
  }
  life.items.clear();
  CHECK(life.go_round(3, 30'000));
  life.end();
}

TEST_CASE("what was set aside for a checkpoint is granted again when that has left the log") {
  Life life;
  const std::uint64_t least = life.journal->stats().log_set_aside.value();
  CHECK(life.go_round(1, 200'000));
  CHECK(life.journal->stats().log_set_aside.value() > 200'000);
  CHECK(life.go_round(3, 10'000));
  CHECK(life.journal->stats().log_set_aside.value() == least);
  finish(life.journal);
}

TEST_CASE("nothing more is set aside for items with a home") {
  Life life;
  Trace trace;
  Probe goes(trace, 1);
  goes.regions = {std::string(200'000, 'h')};
  goes.home = [&](Probe& item) {
    (void)life.journal->release(item);
    return PushResult::kStarted;
  };
  const std::uint64_t least = life.journal->stats().log_set_aside.value();
  take(life.put({&goes}, 200'000));
  CHECK(life.journal->stats().log_set_aside.value() == least);
  finish(life.journal);
}

TEST_CASE("nothing is logged again behind an item that stays where it is") {
  Life life;
  Trace trace;
  std::atomic<int> asked{0};
  std::atomic<bool> home{false};
  Probe locked(trace, 1);
  locked.regions = {"locked"};
  locked.home = [&](Probe& item) {
    ++asked;
    if (!home) {
      return PushResult::kLocked;
    }
    (void)life.journal->release(item);
    return PushResult::kStarted;
  };
  take(life.put({&locked}, 10));
  take(life.put({&life.make(random_bytes(1, 3000))}, 3000));
  Lasting passing(99, true);
  passing.content = std::string(50'000, 'p');
  while (life.journal->stats().log_used.value() + 300'000 < life.info.data.value()) {
    take(life.put({&passing}, 50'000));
  }
  const Bytes before = life.journal->stats().written;
  Status status;
  std::thread waits([&] {
    const auto transaction = life.journal->begin(230'000, 1);
    status = transaction ? Status{} : Status(transaction.error());
  });
  const int asked_before = asked;
  while (asked < asked_before + 8) {
    std::this_thread::yield();
  }
  CHECK(life.journal->stats().written == before);
  home = true;
  waits.join();
  CHECK(status.ok());
  life.end();
}

TEST_CASE("a follower that does not read on makes no full log, whatever is held and set aside") {
  Life life;
  auto follower = life.journal->follow({.most_behind = life.info.data});
  REQUIRE(follower.ok());
  std::vector<std::unique_ptr<IntentItem>> intents;
  for (std::uint64_t id = 0; id < 34; ++id) {
    intents.push_back(std::make_unique<IntentItem>(id, std::span<const std::byte>{}));
    auto transaction = life.journal->begin(IntentItem::log_bytes(0), 1, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(*intents.back()).ok());
    REQUIRE(transaction->commit().ok());
  }
  // Far less than half of the log is in use, but what is held and set aside leaves no more.
  Lasting passing(99, true);
  for (const std::size_t bytes : {180'000U, 244'000U}) {
    passing.content = std::string(bytes, 'p');
    take(life.put({&passing}, bytes));
  }
  (*follower).reset();
  life.end();
}

TEST_CASE("logging again takes the room that logging again has freed just before") {
  Life life;
  Lasting& first = life.make(random_bytes(1, 200'000));
  Lasting& second = life.make(random_bytes(2, 100'000));
  take(life.put({&first}, 200'000));
  take(life.put({&second}, 100'000));
  Lasting passing(99, true);
  passing.content = std::string(50'000, 'p');
  for (int i = 0; i < 9; ++i) {
    take(life.put({&passing}, 50'000));
  }
  // The tail must pass both, and beside the copy of the first there is no room for the second
  // until the tail has passed the first.
  const std::uint64_t least = life.info.data.value() - life.journal->stats().log_used.value();
  CHECK(least > 220'000);
  CHECK(least < 300'000);
  passing.content = std::string(210'000, 'p');
  take(life.put({&passing}, 210'000));
  life.end();
}

TEST_CASE("an item without a home that is larger than a sixteenth of the log is logged again") {
  for (const std::size_t bytes : {70'000U, 150'000U, 230'000U}) {
    CAPTURE(bytes);
    Life life;
    Lasting& large = life.make(random_bytes(bytes, bytes));
    take(life.put({&large}, bytes));
    CHECK(life.go_round(5, 30'000));
    CHECK(life.go_round(3, 200'000));
    life.end();
  }
}

TEST_CASE("an item without a home that is larger than a mebibyte is logged again in a large log") {
  Life life({.size = Bytes(std::uint64_t{24} << 20)});
  Lasting& large = life.make(random_bytes(1, (1U << 20) + 200'000));
  take(life.put({&large}, large.content.size()));
  CHECK(life.go_round(2, 900'000));
  life.end();
}

TEST_CASE(
    "items of which each is alone in its block come to share blocks when they hold the tail") {
  Life life;
  const std::uint64_t blocks = life.info.data.value() / life.info.block_bytes;
  for (std::uint64_t i = 0; i < 2 * blocks; ++i) {
    CAPTURE(i);
    Lasting& item = life.make(random_bytes(i, 50));
    take(life.put({&item}, 50));
  }
  CHECK(life.go_round(2, 30'000));
  life.end();
}

TEST_CASE("more items than a pass looks at, in one checkpoint, are all logged again") {
  Life life;
  std::vector<LogItem*> together;
  for (std::size_t i = 0; i < kMostAgainItems + 300; ++i) {
    together.push_back(&life.make(std::to_string(i)));
  }
  // Their worst case is more than one transaction may take.
  for (std::size_t at = 0; at < together.size();) {
    auto transaction = life.journal->begin(5 * 500, 500);
    REQUIRE(transaction.ok());
    for (const std::size_t end = std::min(at + 500, together.size()); at < end; ++at) {
      REQUIRE(transaction->log(*together[at]).ok());
    }
    REQUIRE(transaction->commit().ok());
  }
  REQUIRE(life.journal->force_all().ok());
  CHECK(life.go_round(6, 30'000));
  life.end();
}

TEST_CASE("a checkpoint that small items without a home fill to the last is logged again") {
  // Several passes are needed, and each of the checkpoints that they make has a unit of its own.
  Life life({.size = kMinLogBytes, .max_checkpoint = Bytes(std::uint64_t{60} * 4096)}, 1);
  constexpr std::size_t kItems = 8600;
  static_assert(kItems > 2 * kMostAgainItems);
  // While one is not complete, no other is closed.
  Gate gate;
  Lasting first(99, true);
  first.content = "first";
  first.during_committed = [&gate] { gate.pass(); };
  REQUIRE(life.journal->on_stable(commit(*life.journal, {&first}), [](const Status&) {}).ok());
  gate.wait_for_arrival();
  for (std::size_t i = 0; i < kItems;) {
    auto transaction = life.journal->begin(50 * 8, 50);
    REQUIRE(transaction.ok());
    for (const std::size_t end = i + 50; i < end; ++i) {
      REQUIRE(transaction->log(life.make(std::to_string(i))).ok());
    }
    REQUIRE(transaction->commit().ok());
  }
  // There is no room in it for two units more.
  const std::uint64_t gathered = life.journal->stats().log_used.value();
  CHECK(gathered + 2 * 12288 > life.info.max_checkpoint.value());
  gate.open();
  REQUIRE(life.journal->force_all().ok());
  CHECK(life.journal->stats().checkpoints == 2);
  CHECK(life.go_round(6, 30'000));
  life.end();
}

TEST_CASE("what holds the tail is not logged again in part if there is no room for all of it") {
  Life life;
  std::vector<LogItem*> together;
  for (std::uint64_t i = 0; i < 8; ++i) {
    Lasting& item = life.make(random_bytes(i, 25'000));
    // So that nothing is set aside for it: it has lost its home when it is stable.
    item.at_home = true;
    item.during_committed = [&item] { item.at_home = false; };
    together.push_back(&item);
  }
  take(life.put(together, 8 * 25'000));
  Lasting passing(99, true);
  passing.content = std::string(10'000, 'p');
  Bytes written{};
  Status status;
  while (status.ok()) {
    written = life.journal->stats().written;
    status = life.put({&passing}, 10'000);
  }
  CHECK(status.error().code == Errc::kLogFull);
  // There is room for a part.
  CHECK(life.info.data.value() - life.journal->stats().log_used.value() > 60'000);
  CHECK(life.journal->stats().written == written);
  life.end();
}

TEST_CASE("too much that lives still makes a full log, and what leaves it ends that") {
  Life life;
  std::vector<LogItem*> all;
  Status status;
  while (status.ok() && all.size() < 100) {
    all.push_back(&life.make(std::string(60'000, 'x')));
    status = life.put({all.back()}, 60'000);
  }
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().code == Errc::kLogFull);
  const std::uint64_t live = (all.size() - 1) * 60'000;
  CHECK(live > life.info.data.value() / 2);
  CHECK(life.journal->stats().written.value() < 4 * life.info.data.value());
  for (std::size_t i = 0; i < all.size(); i += 2) {
    (void)life.journal->release(*all[i]);
  }
  CHECK(life.go_round(4, 30'000));
  finish(life.journal);
}

TEST_CASE("a log a third of which lives is never called full, whatever is committed how") {
  const std::uint64_t seed = test_seed("log_again_room", 90);
  const std::uint64_t rounds = test_rounds(6, 2);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    std::uint64_t state = seed + 1000 * round;
    CAPTURE(round);
    const auto draw = [&state](std::uint64_t below) { return sim_random(state) % below; };
    const std::uint64_t most_checkpoint = (4 + draw(60)) * 4096;
    Life life({.size = kMinLogBytes,
               .max_checkpoint = Bytes(
                   std::min<std::uint64_t>(most_checkpoint, (kMinLogBytes.value() / 4 - 16384)))});
    const std::uint64_t most_transaction = life.info.max_checkpoint.value() - 14'000;
    const std::uint64_t most_live = life.info.data.value() / 3;
    const std::uint64_t largest = std::min(most_transaction * 9 / 10, std::uint64_t{1} << draw(18));
    for (int i = 0; i < 120; ++i) {
      (void)life.make({});
    }
    // What an item costs, roughly: its own block's rounding is gone once it was logged again.
    const auto cost = [](const std::string& content) {
      return content.empty() ? 0 : content.size() + 100;
    };
    std::uint64_t live = 0;
    for (std::uint64_t written = 0, step = 0; written < 8 * life.info.data.value(); ++step) {
      std::vector<LogItem*> some;
      std::uint64_t bytes = 0;
      for (std::uint64_t count = 1 + draw(draw(4) == 0 ? 60 : 3); count > 0; --count) {
        Lasting& item = *life.items[draw(life.items.size())];
        if (std::find(some.begin(), some.end(), &item) != some.end()) {
          continue;
        }
        std::string content = random_bytes(state, 1 + draw(largest));
        const std::uint64_t after = live - cost(item.content) + cost(content);
        if (after > most_live || bytes + content.size() + 100 > most_transaction - 100) {
          continue;
        }
        live = after;
        bytes += content.size() + 100;
        item.content = std::move(content);
        some.push_back(&item);
      }
      if (!some.empty()) {
        take(life.put(some, bytes - 100 * some.size()));
        written += bytes;
      }
      if (draw(4) == 0) {
        Lasting& item = *life.items[draw(life.items.size())];
        live -= cost(item.content);
        item.content.clear();
        (void)life.journal->release(item);
      }
      if (draw(3) == 0) {
        const std::size_t passing = 1 + draw(most_transaction);
        Lasting other(99, true);
        other.content = std::string(passing, 'p');
        take(life.put({&other}, passing));
        written += passing;
      }
      if (draw(200) == 0) {
        life.note_moment();
      }
    }
    life.end();
  }
}
