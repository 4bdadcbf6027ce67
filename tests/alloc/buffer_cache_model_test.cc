// Millions of random puts, takes and drains: each buffer is with a caller or in the cache, once.
#include <doctest/doctest.h>

#include <thread>

#include "cache_board.h"
#include "cpu_pin.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;
using keel_test::CacheBoard;

namespace {

constexpr unsigned kBuffers = 1200;

class Model {
 public:
  explicit Model(CpuStacks::Engine engine) {
    REQUIRE(cache_.open(engine).ok());
    cache_.set_budget(Pages(100'000));
    for (std::uint32_t i = 0; i < kBuffers; ++i) {
      mine_.push_back(i);
    }
  }

  void step() {
    const std::uint64_t act = random_(4096);
    if (act < 8) {
      rare(act);
    } else if (act < 2000 + 90 * (steps_ / 50'000 % 2)) {
      take();
    } else {
      put();
    }
    ++steps_;
  }

  void audit() { board_.audit(cache_); }
  [[nodiscard]] CacheStats stats() const { return cache_.stats(); }

 private:
  void rare(std::uint64_t act) {
    switch (act) {
      case 0: cache_.drain(); break;
      case 1:
      case 2: cache_.drain_idle(); break;
      case 3:
      case 4: cache_.shrink(Pages(random_(3000))); break;
      case 5: cache_.set_budget(Pages(random_(200'000))); break;
      case 6: cache_.set_budget(Pages(random_(4))); break;
      default: keel_test::pin_to(cpus_[random_(cpus_.size())]); break;
    }
    back_to_callers();
  }
  void take() {
    const std::uint32_t buffer =
        board_.take(cache_, CacheBoard::kClasses[random_(CacheBoard::kClasses.size())]);
    if (buffer != CpuStacks::kNone) {
      mine_.push_back(buffer);
    }
  }
  void put() {
    if (mine_.empty()) {
      return;
    }
    std::swap(mine_[random_(mine_.size())], mine_.back());
    const std::uint32_t buffer = mine_.back();
    mine_.pop_back();
    board_.put(cache_, buffer);
    back_to_callers();
  }
  void back_to_callers() {
    for (const std::uint32_t buffer : board_.take_evicted()) {
      mine_.push_back(buffer);
    }
  }

  keel_test::Seeded random_{"buffer cache model"};
  const std::vector<unsigned> cpus_ = keel_test::allowed_cpus();
  CacheBoard board_{kBuffers};
  PoolCounters counters_;
  BufferCache cache_{board_, counters_};
  std::vector<std::uint32_t> mine_;
  std::uint64_t steps_ = 0;
};

}  // namespace

TEST_CASE("a buffer cache behaves like a bag of buffers of each class") {
  const keel_test::Pinned unpins_at_the_end;
  for (const auto engine : {CpuStacks::Engine::kBest, CpuStacks::Engine::kLocked}) {
    Model model(engine);
    const std::uint64_t steps = keel_test::test_rounds(1'500'000, 50'000);
    for (std::uint64_t i = 0; i < steps; ++i) {
      model.step();
      if (i < 10'000 ? i % 10 == 0 : i % 1'000 == 0) {
        model.audit();
      }
    }
    const CacheStats stats = model.stats();
    CHECK(stats.hits > 0);
    CHECK(stats.refills > 0);
    CHECK(stats.evictions > 0);
    keel_test::say_tried("buffer_cache_model", steps);
  }
}

TEST_CASE("threads that share a cache while it is drained lose and double nothing") {
  constexpr unsigned kThreads = 4;
  keel_test::Seeded seeded("buffer cache stress");
  for (const auto engine : {CpuStacks::Engine::kBest, CpuStacks::Engine::kLocked}) {
    CacheBoard board(kBuffers);
    PoolCounters counters;
    BufferCache cache(board, counters);
    REQUIRE(cache.open(engine).ok());
    cache.set_budget(Pages(100'000));
    std::atomic<unsigned> working{kThreads};
    std::vector<std::thread> threads;
    const std::uint64_t steps = keel_test::test_rounds(200'000, 20'000);
    for (unsigned t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t, seed = seeded(~std::uint64_t{0})] {
        std::mt19937_64 random(seed);
        std::vector<std::uint32_t> mine;
        for (std::uint32_t i = t; i < kBuffers; i += kThreads) {
          mine.push_back(i);
        }
        for (std::uint64_t i = 0; i < steps; ++i) {
          if (random() % 2 == 0) {
            const std::uint32_t buffer =
                board.take(cache, CacheBoard::kClasses[random() % CacheBoard::kClasses.size()]);
            if (buffer != CpuStacks::kNone) {
              mine.push_back(buffer);
            }
          } else if (!mine.empty()) {
            board.put(cache, mine.back());
            mine.pop_back();
          } else {
            mine = board.take_evicted();
          }
        }
        --working;
      });
    }
    threads.emplace_back([&] {  // Drains meet drains.
      while (working != 0) {
        cache.drain();
        std::this_thread::yield();
      }
    });
    for (unsigned turn = 0; working != 0; ++turn) {
      switch (turn % 4) {
        case 0: cache.drain(); break;
        case 1: cache.drain_idle(); break;
        case 2: cache.shrink(Pages(500)); break;
        default: cache.set_budget(Pages(turn % 8 == 3 ? 1 : 100'000)); break;
      }
      (void)cache.stats();
      std::this_thread::yield();
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    board.audit(cache);
  }
}

TEST_CASE("drains that meet stop a CPU one after the other") {
  // A CPU that is stopped twice is a failed assertion in debug builds.
  CacheBoard board(kBuffers);
  PoolCounters counters;
  BufferCache cache(board, counters);
  REQUIRE(cache.open(CpuStacks::Engine::kBest).ok());
  cache.set_budget(Pages(100'000));
  const std::uint64_t drains = keel_test::test_rounds(20'000, 2'000);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < drains; ++i) {
        cache.drain();
      }
    });
  }
  // Something lies on this CPU again and again.
  std::vector<std::uint32_t> mine;
  for (std::uint32_t i = 0; i < kBuffers; ++i) {
    mine.push_back(i);
  }
  for (std::uint64_t i = 0; i < drains; ++i) {
    if (mine.empty()) {
      mine = board.take_evicted();
      continue;
    }
    board.put(cache, mine.back());
    mine.pop_back();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  board.audit(cache);
}
