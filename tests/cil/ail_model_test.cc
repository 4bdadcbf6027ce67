// The AIL against sets of items by LSN, and the sort of a context against std::stable_sort.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "ail_support.h"
#include "cil.h"
#include "keel/base/os.h"
#include "probe.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

struct Model {
  struct Place {
    std::uint64_t lsn;
    std::set<std::size_t> items;
    int holds;
  };
  std::map<Bucket*, Place> places;

  void drop(std::size_t item) {
    for (auto& [bucket, place] : places) {
      place.items.erase(item);
    }
  }
  // The LSN that it stands at, or UINT64_MAX.
  [[nodiscard]] std::uint64_t place_of(std::size_t item) const {
    for (const auto& [bucket, place] : places) {
      if (place.items.count(item) != 0) {
        return place.lsn;
      }
    }
    return UINT64_MAX;
  }
  [[nodiscard]] bool tracks(std::size_t item) const { return place_of(item) != UINT64_MAX; }
  // The tail's LSN, or UINT64_MAX.
  [[nodiscard]] std::uint64_t tail() const {
    std::uint64_t lowest = UINT64_MAX;
    for (const auto& [bucket, place] : places) {
      if (!place.items.empty() || place.holds != 0) {
        lowest = std::min(lowest, place.lsn);
      }
    }
    return lowest;
  }
  // Buckets that are given back when they are done, and their address used again: all but the last
  // of several.
  void forget_done() {
    const std::uint64_t lowest = tail();
    std::uint64_t highest = 0;
    for (const auto& [bucket, place] : places) {
      highest = std::max(highest, place.lsn);
    }
    for (auto at = places.begin(); at != places.end();) {
      const Place& place = at->second;
      const bool is_done = place.items.empty() && place.holds == 0;
      const bool stays = place.lsn == highest && lowest != UINT64_MAX;
      at = is_done && !stays ? places.erase(at) : std::next(at);
    }
  }
};

// No memory while `dry`.
class DryOs : public Os {
 public:
  bool dry = false;
  void* metadata_allocate(std::size_t bytes) override {
    return dry ? nullptr : Os::metadata_allocate(bytes);
  }
};

// Each item below the limit is held once, none above it.
void walk(Ail& ail, const Model& model, const std::vector<std::unique_ptr<Probe>>& items,
          std::uint64_t limit) {
  std::set<LogItem*> expected;
  for (const auto& [bucket, place] : model.places) {
    for (const std::size_t item : place.items) {
      if (place.lsn < limit) {
        expected.insert(items[item].get());
      }
    }
  }
  Ail::Walk walk(ail, Lsn(limit));
  Ail::Batch batch;
  do {
    batch = walk.hold_next();
    for (std::size_t i = 0; i < batch.count; ++i) {
      REQUIRE(expected.erase(batch.items[i]) == 1);
      let_go(ail, *batch.items[i], true);
      REQUIRE(ItemAccess::state(*batch.items[i]) == ItemState::kTracked);
    }
  } while (!batch.is_last);
  REQUIRE(expected.empty());
}

// Walks that stand still between their steps, while buckets come and go and items move: each item
// that is below the limit all the time is held, at least once, and none above it.
class Walks {
 public:
  Walks(Ail& ail, const Model& model, const std::vector<std::unique_ptr<Probe>>& items)
      : ail_(ail), model_(model), items_(items) {}

  void begin(std::uint64_t limit) {
    std::set<std::size_t> expected;
    for (const auto& [bucket, place] : model_.places) {
      if (place.lsn < limit) {
        expected.insert(place.items.begin(), place.items.end());
      }
    }
    open_.push_back({std::make_unique<Ail::Walk>(ail_, Lsn(limit)), limit, std::move(expected)});
  }
  // It has left, and may come again, to where the walks have been.
  void left(std::size_t item) {
    for (One& one : open_) {
      one.expected.erase(item);
    }
  }
  [[nodiscard]] std::size_t count() const { return open_.size(); }
  // One step. A walk that was at its end is over.
  void step(std::size_t which) {
    One& one = open_[which];
    const Ail::Batch batch = one.walk->hold_next();
    for (std::size_t i = 0; i < batch.count; ++i) {
      const auto at = std::find_if(items_.begin(), items_.end(),
                                   [&](const auto& item) { return item.get() == batch.items[i]; });
      const auto item = static_cast<std::size_t>(at - items_.begin());
      REQUIRE(model_.place_of(item) < one.limit);
      one.expected.erase(item);
      let_go(ail_, *batch.items[i], true);
      REQUIRE(ItemAccess::state(*batch.items[i]) == ItemState::kTracked);
    }
    if (batch.is_last) {
      for (const std::size_t item : one.expected) {
        REQUIRE(model_.place_of(item) >= one.limit);
      }
      open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }

 private:
  struct One {
    std::unique_ptr<Ail::Walk> walk;
    std::uint64_t limit;
    std::set<std::size_t> expected;
  };

  Ail& ail_;
  const Model& model_;
  const std::vector<std::unique_ptr<Probe>>& items_;
  std::vector<One> open_;
};

void run_model(std::uint64_t seed, unsigned dry_percent) {
  DryOs memory;
  const ScopedOs scope(memory);
  Trace trace;
  constexpr std::size_t kItems = 60;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < kItems; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
  }
  Ail ail;
  Model model;
  Walks walks(ail, model, items);
  std::vector<Bucket*> held;
  std::uint64_t random = seed;
  std::uint64_t lsn = 0;
  for (int step = 0; step < 10000; ++step) {
    memory.dry = sim_random(random) % 100 < dry_percent;
    const std::uint64_t draw = sim_random(random) % 100;
    if (draw < 30) {
      lsn += 4096 * (1 + sim_random(random) % 10);
      Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(lsn), {1, lsn, lsn, 4096});
      // Without memory it may be the last one again: never a later one than asked for.
      REQUIRE(bucket->lsn.value() <= lsn);
      model.forget_done();
      auto [place, added] =
          model.places.try_emplace(bucket, Model::Place{bucket->lsn.value(), {}, 0});
      REQUIRE(place->second.lsn == bucket->lsn.value());
      ++place->second.holds;
      REQUIRE(ail.tail().lsn.value() == model.tail());
      std::vector<LogVector> vectors(sim_random(random) % 150 == 0 ? kItems
                                                                   : sim_random(random) % 8);
      std::set<std::size_t> chosen;
      for (LogVector& vector : vectors) {
        std::size_t item = sim_random(random) % kItems;
        while (!chosen.insert(item).second) {
          item = (item + 1) % kItems;
        }
        vector.item = items[item].get();
        vector.ordered = sim_random(random) % 5 == 0;
        vector.next = &vector == &vectors.back() ? nullptr : &vector + 1;
        vector.cancelled = sim_random(random) % 8 == 0;
        if (vector.cancelled) {
          model.drop(item);
          walks.left(item);
        } else if (!vector.ordered || !model.tracks(item)) {
          model.drop(item);
          place->second.items.insert(item);
        }
      }
      ail.enter(*bucket, vectors.empty() ? nullptr : vectors.data(), nullptr);
      held.push_back(bucket);
    }
    if (draw < 35 && !held.empty()) {
      const std::size_t which = sim_random(random) % held.size();
      --model.places.at(held[which]).holds;
      ail.let_go(*held[which]);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
    } else if (draw < 40) {
      walk(ail, model, items, lsn == 0 ? 0 : sim_random(random) % lsn);
    } else if (draw < 45) {
      // Most of them stand still at any time.
      if (walks.count() < 5) {
        walks.begin(sim_random(random) % 4 == 0 ? UINT64_MAX : sim_random(random) % (lsn + 1));
      }
      walks.step(sim_random(random) % walks.count());
    } else if (draw < 95) {
      const std::size_t item = sim_random(random) % kItems;
      model.drop(item);
      walks.left(item);
      CHECK(forget(ail, *items[item]));
    } else if (draw == 99) {
      LogItem* item = take_first(ail);
      for (std::size_t i = 0; i < kItems; ++i) {
        if (items[i].get() == item) {
          CHECK(model.tracks(i));
          model.drop(i);
          walks.left(i);
        }
      }
    }
    const TailPosition tail = ail.tail();
    REQUIRE(tail.empty == (model.tail() == UINT64_MAX));
    if (!tail.empty) {
      REQUIRE(tail.lsn.value() == model.tail());
      REQUIRE(tail.predecessor.start_lsn == tail.lsn.value());
    }
    (void)ail.audit();
  }
  for (Bucket* bucket : held) {
    ail.let_go(*bucket);
  }
  while (take_first(ail) != nullptr) {
  }
  CHECK(ail.tail().empty);
}

}  // namespace

TEST_CASE("the AIL is what sets of items by LSN say, whatever happens") {
  const std::uint64_t seed = test_seed("ail", 3);
  for (std::uint64_t i = 0; i < test_rounds(5, 2); ++i) {
    run_model(seed + i, 0);
  }
}

TEST_CASE("without memory for buckets the tail is lower than need be, never higher") {
  const std::uint64_t seed = test_seed("dry ail", 4);
  run_model(seed, 50);
  run_model(seed + 1, 95);
  run_model(seed + 2, 100);
}

TEST_CASE("a bucket that is held keeps the tail until it is let go, also one that another joins") {
  Trace trace;
  Probe item(trace, 1);
  Ail ail;
  Bucket* kept = ail.publish(ail.make_bucket(), Lsn(4096), {});
  Bucket* joined = ail.publish(nullptr, Lsn(8192), {});
  CHECK(joined == kept);
  LogVector vector{};
  vector.item = &item;
  ail.enter(*joined, &vector, nullptr);
  ail.let_go(*joined);
  CHECK(forget(ail, item));
  CHECK_FALSE(ail.tail().empty);
  CHECK(ail.tail().lsn == Lsn(4096));
  ail.let_go(*kept);
  CHECK(ail.tail().empty);
}

TEST_CASE("vectors are sorted by the order of commits") {
  std::uint64_t random = test_seed("sort", 9);
  for (int round = 0; round < 300; ++round) {
    const std::size_t count =
        round < 40 ? static_cast<std::size_t>(round) : sim_random(random) % 3000;
    std::vector<LogVector> vectors(count);
    std::vector<LogVector*> expected;
    // Ascending runs, as the parts' lists are, with some vectors out of place, or none in place.
    const std::size_t run = 1 + sim_random(random) % 500;
    for (std::size_t i = 0; i < count; ++i) {
      const bool stray = round % 3 == 0 || sim_random(random) % 50 == 0;
      vectors[i].order = (stray ? sim_random(random) % 100000 : i % run * 7) * 4096 + i;
      vectors[i].next = i + 1 < count ? &vectors[i + 1] : nullptr;
      expected.push_back(&vectors[i]);
    }
    std::stable_sort(expected.begin(), expected.end(),
                     [](const LogVector* a, const LogVector* b) { return a->order < b->order; });
    VectorSorter sorter;
    for (LogVector& vector : vectors) {
      sorter.add(&vector);
    }
    LogVector* sorted = sorter.finish();
    for (const LogVector* want : expected) {
      REQUIRE(sorted == want);
      sorted = sorted->next;
    }
    REQUIRE(sorted == nullptr);
  }
}

TEST_CASE("an item that one walk holds is left alone by another") {
  Trace trace;
  Probe item(trace, 1);
  Ail ail;
  Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(4096), {});
  ail.adopt(*bucket, item);
  ail.let_go(*bucket);
  REQUIRE(Ail::Walk(ail, Lsn(UINT64_MAX)).hold_next().count == 1);
  const Ail::Batch second = Ail::Walk(ail, Lsn(UINT64_MAX)).hold_next();
  CHECK(second.count == 0);
  CHECK(second.pinned == 1);
  CHECK(second.is_last);
  for (std::size_t i = 0; i < second.count; ++i) {
    let_go(ail, *second.items[i], true);
  }
  CHECK_FALSE(forget(ail, item));  // left to who holds it
  let_go(ail, item, true);
  CHECK(forget(ail, item));
}
