// Shrinkers: when a pool asks them, and what they may do then.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "pool_support.h"
#include "support/kernel_threads.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kSize = 64U << 10;
constexpr PoolConfig kTwoMiB{
    .capacity_bytes = 2 * kMiB, .chunk_bytes = kMiB, .window_bytes = 16 * kMiB};

}  // namespace

TEST_CASE("a shrinker that frees serves the allocation that asked it") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  FunctionShrinker shrinker([&](Bytes wanted) {
    CHECK(wanted == Bytes(kSize));
    pool->kvfree(buffers.back());
    buffers.pop_back();
    return Bytes(kSize);
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  void* buffer = pool->kvmalloc(kSize);
  CHECK(buffer != nullptr);
  CHECK(shrinker.calls == 1);
  CHECK(pool->stats().shrinker_calls == 1);
  CHECK(pool->stats().shrinker_bytes == Bytes(kSize));
  CHECK(pool->stats().failures == 1);  // what filled it
  pool->remove_shrinker(shrinker);
  pool->kvfree(buffer);
  free_all(*pool, buffers);
  pool->audit();
}

TEST_CASE("a shrinker may allocate with kNoWait, and is not asked from inside itself") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  bool got = false;
  FunctionShrinker shrinker([&](Bytes) {
    CHECK(pool->kvmalloc(kSize, AllocFlags::kNoWait) == nullptr);
    CHECK(pool->kvmalloc(kSize, AllocFlags::kKernel | AllocFlags::kNoWarn) == nullptr);
    pool->kvfree(buffers.back());
    buffers.pop_back();
    void* small = pool->kvmalloc(kPage, AllocFlags::kNoWait);
    got = small != nullptr;
    pool->kvfree(small);
    return Bytes(kSize);
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  void* buffer = pool->kvmalloc(kSize);
  CHECK(buffer != nullptr);
  CHECK(got);
  CHECK(shrinker.calls == 1);
  pool->remove_shrinker(shrinker);
  pool->kvfree(buffer);
  free_all(*pool, buffers);
  pool->audit();
}

TEST_CASE("shrinkers are asked in turn until there is enough, and those that have nothing never") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  const auto frees = [&](Bytes) {
    pool->kvfree(buffers.back());
    buffers.pop_back();
    return Bytes(kSize);
  };
  FunctionShrinker empty(frees, 0);
  FunctionShrinker first(frees);
  FunctionShrinker second(frees);
  FunctionShrinker third(frees);
  for (FunctionShrinker* each : {&empty, &first, &second, &third}) {
    REQUIRE(pool->add_shrinker(*each).ok());
    CHECK(!pool->add_shrinker(*each).ok());
  }
  void* buffer = pool->kvmalloc(2 * kSize);
  CHECK(buffer != nullptr);
  CHECK(empty.calls == 0);
  CHECK(first.calls == 1);
  CHECK(second.calls == 1);
  CHECK(third.calls == 0);
  for (FunctionShrinker* each : {&first, &second, &third, &empty, &empty}) {
    pool->remove_shrinker(*each);
  }
  pool->kvfree(buffer);
  free_all(*pool, buffers);
}

TEST_CASE("a pass that found too little is followed by another, not by refusal at once") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  FunctionShrinker shrinker([&](Bytes) {
    pool->kvfree(buffers.back());
    buffers.pop_back();
    return Bytes(kSize);
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  CHECK(pool->kvmalloc(4 * kSize) == nullptr);
  CHECK(pool->kvmalloc(4 * kSize) == nullptr);
  CHECK(pool->kvmalloc(4 * kSize) == nullptr);
  CHECK(shrinker.calls == 3);
  void* buffer = pool->kvmalloc(4 * kSize);
  CHECK(buffer != nullptr);
  pool->remove_shrinker(shrinker);
  pool->kvfree(buffer);
  free_all(*pool, buffers);
}

TEST_CASE("a pool takes so many shrinkers and no more") {
  const auto pool = make_pool(kTwoMiB);
  std::vector<std::unique_ptr<FunctionShrinker>> all;
  for (int i = 0; i < 33; ++i) {
    all.push_back(std::make_unique<FunctionShrinker>([](Bytes) { return Bytes(0); }));
    CHECK(pool->add_shrinker(*all.back()).ok() == (i < 32));
  }
  pool->remove_shrinker(*all[7]);
  CHECK(pool->add_shrinker(*all[32]).ok());
}

TEST_CASE("shrinkers that come and go on several threads at once all have their place") {
  constexpr int kThreads = 4;
  constexpr int kEach = 8;  // together as many as a pool takes
  constexpr int kRounds = 300;
  const auto pool = make_pool(kTwoMiB);
  std::atomic<int> refused{0};
  std::atomic<int> here{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<FunctionShrinker>> mine;
      for (int i = 0; i < kEach; ++i) {
        mine.push_back(std::make_unique<FunctionShrinker>([](Bytes) { return Bytes(0); }));
      }
      ++here;
      while (here < kThreads) {
        std::this_thread::yield();
      }
      for (int round = 0; round < kRounds; ++round) {
        for (const auto& one : mine) {
          refused += pool->add_shrinker(*one).ok() ? 0 : 1;
        }
        for (const auto& one : mine) {
          pool->remove_shrinker(*one);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(refused == 0);
}

TEST_CASE("removing a shrinker waits for its call under way") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  pool->kvfree(buffers.back());
  buffers.back() = pool->kvmalloc(kSize);
  std::atomic<bool> inside{false};
  std::atomic<bool> left{false};
  std::atomic<bool> removing{false};
  FunctionShrinker shrinker([&](Bytes) {
    inside = true;
    while (!removing) {
      std::this_thread::yield();
    }
    for (int i = 0; i < 1'000; ++i) {
      std::this_thread::yield();
    }
    left = true;
    return Bytes(0);
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  std::thread asker([&] { CHECK(pool->kvmalloc(kSize) == nullptr); });
  while (!inside) {
    std::this_thread::yield();
  }
  removing = true;
  pool->remove_shrinker(shrinker);
  CHECK(left);
  asker.join();
  free_all(*pool, buffers);
}

TEST_CASE("requests beside another one's pass share what that finds, or ask for their own") {
  for (const std::size_t found : {std::size_t{4}, std::size_t{1}}) {
    CAPTURE(found);
    const Messages messages;
    const auto pool = make_pool(kTwoMiB);
    auto buffers = fill(*pool, kSize);
    // So that nothing is marked as tried in vain.
    pool->kvfree(buffers.back());
    buffers.back() = pool->kvmalloc(kSize);
    const std::uint64_t passes = pool->stats().reclaims;
    void* other = nullptr;
    std::optional<std::thread> second;
    std::atomic<pid_t> waits{0};
    FunctionShrinker shrinker([&](Bytes) {
      if (!second) {
        second.emplace([&] {
          waits = ::gettid();
          other = pool->kvmalloc(kSize);
        });
        // Until it sleeps, look after look: in the way there it might for a moment.
        for (int looks = 0; looks < 10; std::this_thread::yield()) {
          const bool there = pool->stats().reclaims >= passes + 2;
          looks = there && keel_test::is_asleep(waits) ? looks + 1 : 0;
        }
      }
      for (std::size_t i = 0; i < found; ++i) {
        pool->kvfree(buffers.back());
        buffers.pop_back();
      }
      return Bytes(found * kSize);
    });
    REQUIRE(pool->add_shrinker(shrinker).ok());
    void* mine = pool->kvmalloc(kSize);
    CHECK(mine != nullptr);
    REQUIRE(second.has_value());
    second->join();
    CHECK(other != nullptr);
    CHECK((shrinker.calls == 1) == (found == 4));
    pool->remove_shrinker(shrinker);
    pool->kvfree(mine);
    pool->kvfree(other);
    free_all(*pool, buffers);
    pool->audit();
  }
}

TEST_CASE("a request that lost what its shrinkers gave to another one asks them again") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  FunctionShrinker shrinker([&](Bytes) {
    pool->kvfree(buffers.back());
    buffers.pop_back();
    if (shrinker.calls <= 3) {
      buffers.push_back(pool->kvmalloc(kSize, AllocFlags::kNoWait));  // As anybody may.
      CHECK(buffers.back() != nullptr);
    }
    return Bytes(kSize);
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  void* buffer = pool->kvmalloc(kSize);
  CHECK(buffer != nullptr);
  CHECK(shrinker.calls == 4);
  pool->remove_shrinker(shrinker);
  pool->kvfree(buffer);
  free_all(*pool, buffers);
  pool->audit();
}

TEST_CASE("a shrinker that only says that it gave is not asked for ever") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  auto buffers = fill(*pool, kSize);
  FunctionShrinker shrinker([&](Bytes wanted) { return wanted; });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  CHECK(pool->kvmalloc(kSize) == nullptr);
  CHECK(shrinker.calls <= 16);
  pool->remove_shrinker(shrinker);
  free_all(*pool, buffers);
}
