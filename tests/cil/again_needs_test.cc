#include "again_needs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "space.h"
#include "support/sim_image.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a checkpoint joins nothing in a log that is empty, or was") {
  AgainNeeds needs(1000);
  CHECK(needs.joined() == 0);
  needs.add(Lsn(0), 10, false);
  CHECK(needs.joined() == 0);
  needs.add(Lsn(100), 5, true);
  CHECK(needs.joined() == 15);
  needs.tail_moved(Lsn(200));
  CHECK(needs.joined() == 0);
}

TEST_CASE("needs are known for as long as their checkpoints are in the log, however many") {
  AgainNeeds needs(1000);
  struct Bucket {
    Lsn start;
    Lsn last;  // of the checkpoints that share it
    std::uint64_t need;
  };
  std::deque<Bucket> there;
  std::uint64_t state = test_seed("needs", 5);
  const auto draw = [&state](std::uint64_t below) { return sim_random(state) % below; };
  Lsn head(0);
  for (int i = 0; i < 20'000; ++i) {
    if (there.empty() || draw(2) == 0) {
      const std::uint64_t need = draw(300);
      // One that joins needs nothing for itself alone.
      const bool joined = !there.empty() && draw(5) == 0;
      needs.add(head, need, joined);
      if (joined) {
        there.back().last = head;
        there.back().need += need;
      } else {
        there.push_back({head, head, need});
      }
      CHECK(needs.joined() >= (joined ? there.back().need : 0));
      head += Bytes(1 + draw(draw(3) == 0 ? 250 : 5));
    }
    Lsn tail = there.front().start;
    if (draw(20) == 0) {
      tail += Bytes(draw((head - tail).value() + 1));
    }
    tail = std::max(tail, head - std::min(head - Lsn(0), Bytes(1000)));
    while (!there.empty() && there.front().last < tail) {
      there.pop_front();
    }
    needs.tail_moved(tail);
    std::uint64_t most = 0;
    for (const Bucket& bucket : there) {
      most = std::max(most, bucket.need);
    }
    CHECK(needs.most() >= most);
    CHECK((!there.empty() || needs.most() == 0));
  }
}

TEST_CASE("what a bucket is said to need is enough for its parts, however its items are divided") {
  constexpr std::uint32_t kBlock = 4096;
  const std::uint64_t unit = format::checkpoint_unit(kBlock);
  std::uint64_t state = test_seed("need_again", 5);
  const auto draw = [&state](std::uint64_t below) { return sim_random(state) % below; };
  const std::uint64_t rounds = test_rounds(400, 100);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    CAPTURE(round);
    const std::uint64_t most = unit + 2000 + draw(500'000);
    std::vector<std::uint64_t> costs;
    Homeless all;
    std::uint64_t said = 0;
    for (std::uint64_t n = 1 + draw(5), i = 0; i < n; ++i) {
      Homeless one;
      const std::uint64_t wanted = draw(most - unit) + 1;
      const std::uint64_t largest = draw(3) == 0 ? most - unit : draw(2) == 0 ? 60 : 5000;
      while (one.cost < wanted) {
        const std::uint64_t cost = std::min({17 + draw(largest), wanted, most - unit - one.cost});
        costs.push_back(cost);
        ++one.items;
        one.cost += cost;
      }
      const std::uint64_t need = need_again(one, kBlock, most);
      CHECK(need <= unit + 2 * one.cost);
      said += need + (i == 0 ? 0 : need_to_join(kBlock));
      all.items += one.items;
      all.cost += one.cost;
    }
    const std::uint64_t need = need_again(all, kBlock, most);
    CHECK(need <= said);
    // As the upkeep does it, in whatever order the items stand.
    for (std::size_t i = costs.size(); i > 1; --i) {
      std::swap(costs[i - 1], costs[draw(i)]);
    }
    std::uint64_t left = need;
    for (std::size_t i = 0; i < costs.size();) {
      CHECK(least_again(all, kBlock) <= left);
      std::uint64_t used = unit;
      for (std::uint64_t items = 0; items < kMostAgainItems && i < costs.size() &&
                                    used + costs[i] <= most && used + costs[i] <= left;
           ++items, ++i) {
        used += costs[i];
        --all.items;
        all.cost -= costs[i];
      }
      REQUIRE(used > unit);
      left -= used;
    }
  }
}
