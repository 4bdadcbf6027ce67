// Depot alone: order, bounds and counts; then millions of random operations against plain deques.
#include "depot.h"

#include <doctest/doctest.h>

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "support/seeded.h"
#include "support/test_seed.h"

using namespace keel;

namespace {

constexpr unsigned kClass = 3;  // four pages

std::vector<Pfn> numbered(std::uint64_t first, std::uint64_t count) {
  std::vector<Pfn> all;
  for (std::uint64_t i = 0; i < count; ++i) {
    all.emplace_back(first + i);
  }
  return all;
}

std::uint64_t count_of(const Depot& depot, unsigned of) {
  return depot.pages_of(of).value() / pages_of_class(of);
}

std::vector<Pfn> take(Depot& depot, unsigned most, bool oldest) {
  std::vector<Pfn> out(most);
  out.resize(oldest ? depot.take_oldest(kClass, out) : depot.take(kClass, out));
  return out;
}

}  // namespace

TEST_CASE("a depot gives mapped buffers first and of each tier the last returned") {
  const auto depot = std::make_unique<Depot>();
  CHECK(depot->put(kClass, Tier::kContiguous, numbered(10, 2)) == 2);
  CHECK(depot->put(kClass, Tier::kMapped, numbered(20, 2)) == 2);
  CHECK(depot->pages() == Pages(16));
  CHECK(count_of(*depot, kClass) == 4);
  CHECK(take(*depot, 3, false) == std::vector{Pfn(21), Pfn(20), Pfn(11)});
  CHECK(take(*depot, 3, false) == std::vector{Pfn(10)});
  CHECK(take(*depot, 3, false).empty());
  CHECK(depot->pages() == Pages(0));
}

TEST_CASE("the oldest leave a depot first, contiguous ones before mapped ones") {
  const auto depot = std::make_unique<Depot>();
  CHECK(depot->put(kClass, Tier::kMapped, numbered(20, 3)) == 3);
  CHECK(depot->put(kClass, Tier::kContiguous, numbered(10, 3)) == 3);
  CHECK(take(*depot, 2, true) == std::vector{Pfn(10), Pfn(11)});
  CHECK(take(*depot, 2, true) == std::vector{Pfn(12), Pfn(20)});
  CHECK(take(*depot, 5, true) == std::vector{Pfn(21), Pfn(22)});
  CHECK(depot->pages() == Pages(0));
}

TEST_CASE("a shelf that is full takes no more, and only that shelf") {
  const auto depot = std::make_unique<Depot>();
  const auto many = numbered(0, Depot::kShelfDepth + 5);
  CHECK(depot->put(kClass, Tier::kContiguous, many) == Depot::kShelfDepth);
  CHECK(depot->put(kClass, Tier::kContiguous, numbered(900, 1)) == 0);
  CHECK(depot->put(kClass, Tier::kMapped, numbered(901, 1)) == 1);
  CHECK(depot->put(kClass + 1, Tier::kContiguous, numbered(902, 1)) == 1);
  CHECK(depot->pages() == Pages(Depot::kShelfDepth * 4 + 4 + 5));
}

TEST_CASE("a class is idle until something is taken from it, and again once that was asked") {
  const auto depot = std::make_unique<Depot>();
  CHECK(depot->was_idle(kClass));
  CHECK(depot->put(kClass, Tier::kMapped, numbered(1, 3)) == 3);
  CHECK(depot->was_idle(kClass));
  CHECK(take(*depot, 1, true).size() == 1);  // an eviction is no use
  CHECK(depot->was_idle(kClass));
  CHECK(take(*depot, 1, false).size() == 1);
  CHECK(!depot->was_idle(kClass));
  CHECK(depot->was_idle(kClass));
}

namespace {

// What a depot of plain containers would do.
class DepotModel {
 public:
  void step() {
    const unsigned of = static_cast<unsigned>(random_(kSizeClasses));
    const unsigned count = 1 + static_cast<unsigned>(random_(16));
    switch (random_(5)) {
      case 0:
      case 1: put(of, random_.one_in(2) ? Tier::kMapped : Tier::kContiguous, count); break;
      case 2:
      case 3: take(of, count); break;
      default: take_oldest(of, count); break;
    }
  }
  void audit() const {
    std::uint64_t pages = 0;
    for (unsigned c = 0; c < kSizeClasses; ++c) {
      const std::size_t here = shelf(c, Tier::kMapped).size() + shelf(c, Tier::kContiguous).size();
      REQUIRE(count_of(*depot_, c) == here);
      pages += here * pages_of_class(c);
    }
    REQUIRE(depot_->pages() == Pages(pages));
  }

 private:
  using Shelf = std::deque<Pfn>;
  [[nodiscard]] const Shelf& shelf(unsigned of, Tier tier) const {
    return shelves_[of * 2 + static_cast<unsigned>(tier)];
  }
  Shelf& shelf(unsigned of, Tier tier) { return shelves_[of * 2 + static_cast<unsigned>(tier)]; }

  void put(unsigned of, Tier tier, unsigned count) {
    std::array<Pfn, 16> items;
    for (unsigned i = 0; i < count; ++i) {
      items[i] = Pfn(next_++);
    }
    const std::size_t room = Depot::kShelfDepth - shelf(of, tier).size();
    const unsigned fit = depot_->put(of, tier, std::span(items).first(count));
    REQUIRE(fit == std::min<std::size_t>(room, count));
    shelf(of, tier).insert(shelf(of, tier).end(), items.begin(), items.begin() + fit);
  }

  void take(unsigned of, unsigned most) {
    std::array<Pfn, 16> out;
    const unsigned got = depot_->take(of, std::span(out).first(most));
    for (unsigned i = 0; i < got; ++i) {
      Shelf& from = shelf(of, shelf(of, Tier::kMapped).empty() ? Tier::kContiguous : Tier::kMapped);
      REQUIRE(!from.empty());
      REQUIRE(out[i] == from.back());
      from.pop_back();
    }
    REQUIRE((got == most || count_of(*depot_, of) == 0));
  }

  void take_oldest(unsigned of, unsigned most) {
    std::array<Pfn, 16> out;
    const unsigned got = depot_->take_oldest(of, std::span(out).first(most));
    for (unsigned i = 0; i < got; ++i) {
      Shelf& from =
          shelf(of, shelf(of, Tier::kContiguous).empty() ? Tier::kMapped : Tier::kContiguous);
      REQUIRE(!from.empty());
      REQUIRE(out[i] == from.front());
      from.pop_front();
    }
    REQUIRE((got == most || count_of(*depot_, of) == 0));
  }

  keel_test::Seeded random_{"depot model"};
  std::unique_ptr<Depot> depot_ = std::make_unique<Depot>();
  std::vector<Shelf> shelves_{std::size_t{kSizeClasses} * 2};
  std::uint64_t next_ = 0;
};

}  // namespace

TEST_CASE("a depot behaves like plain shelves of buffers") {
  DepotModel model;
  const std::uint64_t steps = keel_test::test_rounds(2'500'000, 200'000);
  for (std::uint64_t i = 0; i < steps; ++i) {
    model.step();
    if (i < 10'000 || i % 1'000 == 0) {
      model.audit();
    }
  }
}

TEST_CASE("threads that exchange buffers through a depot lose and double nothing") {
  constexpr unsigned kThreads = 4;
  constexpr unsigned kEach = 100;
  const auto depot = std::make_unique<Depot>();
  std::vector<std::vector<Pfn>> bags(kThreads);
  std::vector<std::thread> threads;
  const std::uint64_t steps = keel_test::test_rounds(100'000, 10'000);
  for (unsigned t = 0; t < kThreads; ++t) {
    bags[t] = numbered(std::uint64_t{t} * kEach, kEach);
    threads.emplace_back([&bag = bags[t], &depot, steps, t] {
      std::mt19937_64 random(t);
      for (std::uint64_t i = 0; i < steps; ++i) {
        std::array<Pfn, 8> out;
        const unsigned got = random() % 2 == 0
                                 ? depot->take(kClass, out)
                                 : depot->take_oldest(kClass, std::span(out).first(3));
        bag.insert(bag.end(), out.begin(), out.begin() + got);
        const std::size_t count = std::min<std::size_t>(bag.size(), random() % 8);
        const Tier tier = random() % 2 == 0 ? Tier::kMapped : Tier::kContiguous;
        const unsigned fit = depot->put(kClass, tier, std::span(bag).last(count));
        // The first of the span went in.
        bag.erase(bag.end() - static_cast<std::ptrdiff_t>(count),
                  bag.end() - static_cast<std::ptrdiff_t>(count - fit));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::vector<unsigned> seen(std::size_t{kThreads} * kEach, 0);
  depot->for_each(kClass, [&](Pfn item) { ++seen[item.value()]; });
  for (const auto& bag : bags) {
    for (const Pfn item : bag) {
      ++seen[item.value()];
    }
  }
  for (const unsigned times : seen) {
    REQUIRE(times == 1);
  }
}
