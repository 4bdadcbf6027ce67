// Shifting sizes for as long as KEEL_CHURN_SECONDS says (make nightly: an hour): what the pool
// takes from the system must not creep up.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "keel/alloc/pool.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kMostLive = 64 * kMiB;

struct Held {
  void* at;
  std::size_t size;
};

// Replaces buffers at random until four times what may be live was allocated.
Bytes phase(Pool& pool, keel_test::Seeded& random, std::vector<Held>& held, std::size_t& live,
            std::size_t largest) {
  Bytes peak{};
  for (std::size_t done = 0; done < 4 * kMostLive;) {
    const std::size_t size = 1 + random(largest);
    while (live + size > kMostLive) {
      std::swap(held[random(held.size())], held.back());
      pool.kvfree(held.back().at);
      live -= held.back().size;
      held.pop_back();
    }
    void* at = pool.kvmalloc(size, AllocFlags::kKernel, "churn");
    REQUIRE(at != nullptr);
    held.push_back({at, size});
    live += size;
    done += size;
    peak = std::max(peak, held.size() % 64 == 0 ? pool.stats().populated : peak);
  }
  return std::max(peak, pool.stats().populated);
}

}  // namespace

TEST_CASE("churn of shifting sizes does not make the pool creep up") {
  const char* wanted = std::getenv("KEEL_CHURN_SECONDS");
  const double seconds = wanted != nullptr ? std::atof(wanted) : 1.0;
  keel_test::Seeded random("churn");
  auto pool = Pool::create({.capacity_bytes = 512 * kMiB});
  REQUIRE(pool.ok());
  std::vector<Held> held;
  std::size_t live = 0;
  Bytes early{};
  Bytes late{};
  const auto began = std::chrono::steady_clock::now();
  for (int round = 0;; ++round) {
    Bytes peak{};
    for (const std::size_t largest : {std::size_t{64} << 10, 4 * kMiB, std::size_t{3000}, kMiB}) {
      peak = std::max(peak, phase(**pool, random, held, live, largest));
    }
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - began;
    (round < 2 || passed.count() < seconds / 4 ? early : late) =
        std::max(round < 2 || passed.count() < seconds / 4 ? early : late, peak);
    if (passed.count() > seconds && round >= 3) {
      break;
    }
  }
  MESSAGE("populated: ", early.value() / kMiB, " MiB early, ", late.value() / kMiB, " MiB late");
  CHECK(late.value() <= early.value() + early.value() / 4);
  for (const Held& buffer : held) {
    (*pool)->kvfree(buffer.at);
  }
  CHECK((*pool)->stats().small == Bytes(0));
  keel_test::say_tried("churn", static_cast<std::uint64_t>(seconds));
}
