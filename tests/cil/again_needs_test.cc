#include "again_needs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "support/sim_image.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("needs are known for as long as their checkpoints are in the log, however many") {
  AgainNeeds needs(1000);
  std::deque<std::pair<Lsn, std::uint64_t>> there;
  std::uint64_t state = test_seed("needs", 5);
  const auto draw = [&state](std::uint64_t below) { return sim_random(state) % below; };
  Lsn head(0);
  for (int i = 0; i < 20'000; ++i) {
    if (there.empty() || draw(2) == 0) {
      const std::uint64_t need = draw(300);
      needs.add(head, need, false);
      there.emplace_back(head, need);
      head += Bytes(1 + draw(draw(3) == 0 ? 250 : 5));
    }
    Lsn tail = there.front().first;
    if (draw(20) == 0) {
      tail += Bytes(draw((head - tail).value() + 1));
    }
    tail = std::max(tail, head - std::min(head - Lsn(0), Bytes(1000)));
    while (!there.empty() && there.front().first < tail) {
      there.pop_front();
    }
    needs.tail_moved(tail);
    std::uint64_t most = 0;
    for (const auto& [start, need] : there) {
      most = std::max(most, need);
    }
    CHECK(needs.most() >= most);
    CHECK((!there.empty() || needs.most() == 0));
  }
}
