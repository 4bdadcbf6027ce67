// The AIL under threads: one enters checkpoints, others walk it, take items out, look at its tail.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "ail_support.h"
#include "support/gate.h"
#include "support/sim_disk.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

class QuietItem : public LogItem {
 public:
  QuietItem() : LogItem(kFirstClientType) {}

 protected:
  void size(ItemSize&) const override {}
  void format(ItemFormatter&) const override {}
};

constexpr std::size_t kItems = 48;
constexpr std::size_t kForgotten = 12;  // of these, again and again

// A checkpoint of some items, pinned as those of one are. One in eight of them is cancelled.
void enter_one(Ail& ail, std::vector<QuietItem>& items, std::uint64_t lsn, std::uint64_t& random) {
  std::array<LogVector, 8> vectors{};
  const std::size_t first = sim_random(random) % kItems;
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    vectors[i].item = &items[(first + i * 5) % kItems];
    vectors[i].cancelled = sim_random(random) % 8 == 0;
    vectors[i].next = i + 1 < vectors.size() ? &vectors[i + 1] : nullptr;
    (void)ItemAccess::commit(*vectors[i].item, true);
  }
  Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(lsn), {1, lsn, lsn, 4096});
  ail.enter(*bucket, vectors.data(), nullptr);
  ail.let_go(*bucket);
  for (const LogVector& vector : vectors) {
    if (ItemAccess::unpin(*vector.item, vector.cancelled)) {
      let_go(ail, *vector.item, !vector.cancelled);
    }
  }
}

void walk(Ail& ail, std::atomic<std::uint64_t>& held) {
  Ail::Walk walk(ail, Lsn(UINT64_MAX));
  Ail::Batch batch;
  do {
    batch = walk.hold_next();
    held += batch.count;
    for (std::size_t i = 0; i < batch.count; ++i) {
      let_go(ail, *batch.items[i], true);
    }
  } while (!batch.is_last);
}

}  // namespace

TEST_CASE("threads that enter, walk, forget and look leave each item in one bucket or in none") {
  const std::uint64_t seed = test_seed("ail stress", 5);
  std::vector<QuietItem> items(kItems);
  Ail ail;
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> held{0};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!done) {
      walk(ail, held);
    }
  });
  threads.emplace_back([&] {
    for (std::uint64_t random = seed + 1; !done;) {
      (void)forget(ail, items[sim_random(random) % kForgotten]);
      ail.give_bucket(ail.make_bucket());
    }
  });
  std::uint64_t lowest = 0;
  threads.emplace_back([&] {
    while (!done) {
      const TailPosition tail = ail.tail();
      if (!tail.empty) {
        CHECK(tail.lsn.value() >= lowest);
        lowest = tail.lsn.value();
      }
    }
  });
  std::uint64_t random = seed;
  const std::uint64_t checkpoints = test_rounds(60'000, 2'000);
  for (std::uint64_t i = 1; i <= checkpoints; ++i) {
    enter_one(ail, items, i * 4096, random);
  }
  // On a busy machine the walker may have had no turn yet.
  CHECK(soon([&] { return held != 0; }));
  done = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::size_t tracked = 0;
  for (const QuietItem& item : items) {
    tracked += item.tracked() ? 1U : 0U;
  }
  std::size_t left = 0;
  while (take_first(ail) != nullptr) {
    ++left;
  }
  CHECK(left == tracked);
  for (QuietItem& item : items) {
    (void)forget(ail, item);  // what was pinned when it was wished away
  }
  CHECK(ail.tail().empty);
}
