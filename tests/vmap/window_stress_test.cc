// Threads that map, hand over, unmap and purge at once. Run it under ThreadSanitizer.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "keel/base/check.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::number_at;
using keel_test::run_of;
using Fixture = keel_test::WindowFixture;

namespace {

// What threads hand to each other: addresses of live areas, each of which says by its cookie what
// it holds. Empty places are nullptr.
using Exchange = std::array<std::atomic<std::byte*>, 48>;

void check_and_unmap(Window& window, std::byte* at) {
  const auto area = window.find(at);
  KEEL_CHECK(area && area->start == at, "the area is not found by who owns it");
  KEEL_CHECK(number_at(at) == area->cookie, "first page of the area", number_at(at), area->cookie);
  KEEL_CHECK(number_at(at + (area->pages.value() - 1) * kPageBytes) ==
                 area->cookie + area->pages.value() - 1,
             "last page of the area", area->cookie);
  VmapArea unmapped;
  KEEL_CHECK(window.unmap(at, &unmapped) && unmapped.cookie == area->cookie, "unmap of the area");
}

void map_and_exchange(Window& window, Exchange& exchange, std::uint64_t seed, std::uint64_t steps) {
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < steps; ++i) {
    const std::uint64_t largest = random() % 50 == 0 ? 200 : 12;
    const std::uint64_t pages = 1 + random() % largest;
    const std::uint64_t first = random() % (keel_test::kFrames - pages);
    const auto mapped =
        window.map(run_of(first, pages), {.cookie = first, .guard = random() % 3 == 0});
    // The window is small: that there is no room is no failure here.
    std::byte* mine = mapped ? static_cast<std::byte*>(*mapped) : nullptr;
    // Pairs with itself on the other threads: who takes an area sees what it holds.
    std::byte* taken =
        exchange[random() % exchange.size()].exchange(mine, std::memory_order_acq_rel);
    if (taken != nullptr) {
      check_and_unmap(window, taken);
    }
    if (random() % 64 == 0) {
      (void)window.purge().ok();
    }
  }
}

struct Counter : VmapVisitor {
  void visit(const VmapRange& range) override { pages += range.area.pages.value(); }
  std::uint64_t pages = 0;
};

void run_stress(unsigned threads, const WindowConfig& config) {
  Fixture f(config);
  keel_test::Seeded seeds("window stress");
  Exchange exchange{};
  std::atomic<bool> stop{false};
  std::vector<std::thread> mappers;
  const std::uint64_t steps = keel_test::test_rounds(8'000, 1'500) / threads;
  for (unsigned i = 0; i < threads; ++i) {
    mappers.emplace_back(map_and_exchange, std::ref(*f.window), std::ref(exchange), seeds(~0ULL),
                         steps);
  }
  std::thread background([&] {
    while (!stop.load(std::memory_order_relaxed)) {  // Only to end.
      if (!f.window->purge_slice()) {
        std::this_thread::yield();
      }
      Counter counter;
      f.window->visit_ranges(counter);
      f.window->audit();
    }
  });
  for (std::thread& mapper : mappers) {
    mapper.join();
  }
  stop.store(true, std::memory_order_relaxed);
  background.join();
  for (auto& place : exchange) {
    if (std::byte* left = place.load(std::memory_order_relaxed)) {
      check_and_unmap(*f.window, left);
    }
  }
  REQUIRE(f.window->purge().ok());
  CHECK(f.window->stats().live == Pages(0));
  CHECK(f.window->lazy_pages() == Pages(0));
  f.window->audit();
}

}  // namespace

TEST_CASE("2 to 8 threads map, hand over, unmap and purge in a window with room") {
  for (const unsigned threads : {2U, 4U, 8U}) {
    run_stress(threads, {.bytes = 64U << 20, .shards = 4});
  }
}

TEST_CASE("2 to 8 threads map, hand over, unmap and purge in a window that is nearly full") {
  for (const unsigned threads : {2U, 4U, 8U}) {
    run_stress(threads, {.bytes = 1U << 20, .lazy_max = Pages(40), .shards = 4});
  }
}

TEST_CASE("2 to 8 threads map areas over many shards, and small ones between them") {
  for (const unsigned threads : {2U, 4U, 8U}) {
    run_stress(threads, {.bytes = 8U << 20, .lazy_max = Pages(500), .shards = 32});
  }
}
