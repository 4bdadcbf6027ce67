// Checkpoints that share a bucket of the AIL, because there was no memory for one of their own,
// hold the tail together: their items without a home are logged again however much that is.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "lasting_life.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE(
    "checkpoints that share a bucket are logged again, though one checkpoint cannot hold it") {
  Life life;
  life.disk.no_buckets = true;
  take(life.put({&life.make("has the first of the two buckets that there always are")}, 100));
  std::vector<LogItem*> some;
  for (std::uint64_t i = 0; i < 20; ++i) {
    some.push_back(&life.make(random_bytes(i, 20'000)));
    if (some.size() == 10) {
      take(life.put(some, 10 * 20'000));
      some.clear();
    }
  }
  life.disk.no_buckets = false;
  CHECK(life.go_round(6, 30'000));
  life.end();
}

TEST_CASE("items of very different sizes that share a bucket are logged again in parts") {
  Life life;
  life.disk.no_buckets = true;
  for (std::uint64_t i = 0; i < 6; ++i) {
    const std::size_t bytes = i % 2 == 0 ? 130'000 : 10;
    take(life.put({&life.make(random_bytes(i, bytes))}, bytes));
  }
  life.disk.no_buckets = false;
  CHECK(life.go_round(6, 30'000));
  life.end();
}

TEST_CASE("what is logged again leaves its bucket, though there is no memory for another ever") {
  Life life;
  life.disk.no_buckets = true;
  take(life.put({&life.make(random_bytes(1, 20'000))}, 20'000));
  CHECK(life.go_round(6, 30'000));
  take(life.put({&life.make(random_bytes(2, 200'000))}, 200'000));
  CHECK(life.go_round(6, 30'000));
  life.end();
}

TEST_CASE("a log a fifth of which lives is never called full, whatever shares a bucket") {
  const std::uint64_t seed = test_seed("log_again_joined", 90);
  const std::uint64_t rounds = test_rounds(6, 2);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    std::uint64_t state = seed + 1000 * round;
    CAPTURE(round);
    const auto draw = [&state](std::uint64_t below) { return sim_random(state) % below; };
    const std::uint64_t blocks = 10 + draw(50);
    Life life({.size = kMinLogBytes, .max_checkpoint = Bytes(blocks * 4096)});
    const std::uint64_t most = life.info.max_checkpoint.value() - 14'000;
    const std::uint64_t most_live = life.info.data.value() / 5;
    for (int i = 0; i < 60; ++i) {
      (void)life.make({});
    }
    // What an item costs, roughly.
    const auto cost = [](std::uint64_t bytes) { return bytes == 0 ? 0 : bytes + 100; };
    std::uint64_t live = 0;
    for (std::uint64_t written = 0; written < 8 * life.info.data.value();) {
      if (draw(12) == 0) {
        life.disk.no_buckets = draw(2) == 0;
      }
      if (draw(2) == 0) {
        Lasting& item = *life.items[draw(life.items.size())];
        const std::uint64_t bytes = 1 + draw(draw(4) == 0 ? most * 9 / 10 : 3000);
        if (live - cost(item.content.size()) + cost(bytes) <= most_live) {
          live += cost(bytes) - cost(item.content.size());
          item.content = random_bytes(state, bytes);
          take(life.put({&item}, bytes));
          written += bytes;
        }
      } else {
        Lasting passing(99, true);
        passing.content = std::string(1 + draw(most * 9 / 10), 'p');
        take(life.put({&passing}, passing.content.size()));
        written += passing.content.size();
      }
      if (draw(8) == 0) {
        Lasting& item = *life.items[draw(life.items.size())];
        live -= cost(item.content.size());
        item.content.clear();
        (void)life.journal->release(item);
      }
      if (draw(100) == 0) {
        life.note_moment();
      }
    }
    life.end();
  }
}
