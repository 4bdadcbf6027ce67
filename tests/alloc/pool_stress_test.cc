// Threads that allocate, and others that free what they made, with purges and trims going on.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "keel/base/mutex.h"
#include "pool_support.h"
#include "support/seeded.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr int kMakers = 2;
constexpr int kTakers = 2;
constexpr int kBuffersEach = 3'000;

struct Buffer {
  unsigned char* at = nullptr;  // nullptr: no more will come
  std::size_t size = 0;
  unsigned char mark = 0;
};

// Hands buffers from makers to takers, first in first out, so that the signs to stop come last;
// bounded, so that memory goes round.
class Queue {
 public:
  void push(Buffer buffer) {
    MutexLock lock(mutex_);
    while (used_ == slots_.size()) {
      changed_.wait(mutex_);
    }
    slots_[(first_ + used_++) % slots_.size()] = buffer;
    changed_.notify_all();
  }
  Buffer pop() {
    MutexLock lock(mutex_);
    while (used_ == 0) {
      changed_.wait(mutex_);
    }
    const Buffer buffer = slots_[first_++ % slots_.size()];
    --used_;
    changed_.notify_all();
    return buffer;
  }

 private:
  Mutex mutex_{LockRank::kLeaf};
  CondVar changed_;
  std::array<Buffer, 16> slots_ KEEL_GUARDED_BY(mutex_){};
  std::size_t first_ KEEL_GUARDED_BY(mutex_) = 0;
  std::size_t used_ KEEL_GUARDED_BY(mutex_) = 0;
};

void make_buffers(Pool& pool, Queue& queue, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < kBuffersEach; ++i) {
    Buffer buffer;
    const bool large = random() % 10 == 0;
    buffer.size = 1 + random() % (large ? std::size_t{5} << 20 : std::size_t{64} << 10);
    buffer.mark = static_cast<unsigned char>(random());
    // At the cap kNoFail waits for what the takers free.
    buffer.at =
        static_cast<unsigned char*>(pool.kvmalloc(buffer.size, AllocFlags::kNoFail, "stress"));
    buffer.at[0] = buffer.mark;
    buffer.at[buffer.size - 1] = buffer.mark;
    queue.push(buffer);
  }
}

// Returns how many buffers did not hold what was written to them.
int take_buffers(Pool& pool, Queue& queue) {
  int wrong = 0;
  for (Buffer buffer = queue.pop(); buffer.at != nullptr; buffer = queue.pop()) {
    wrong += buffer.at[0] != buffer.mark || buffer.at[buffer.size - 1] != buffer.mark ? 1 : 0;
    pool.kvfree(buffer.at);
  }
  return wrong;
}

}  // namespace

TEST_CASE("buffers made on one thread are freed on another while the pool purges and trims") {
  keel_test::Seeded seeded("pool stress");
  auto made = Pool::create({.capacity_bytes = std::size_t{24} << 20,
                            .chunk_bytes = std::size_t{1} << 20,
                            .window_bytes = std::size_t{64} << 20,
                            .max_mappings = 3'000});
  REQUIRE(made.ok());
  Pool& pool = **made;
  Queue queue;
  std::atomic<int> wrong{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> makers;
  std::vector<std::thread> takers;
  for (int i = 0; i < kMakers; ++i) {
    makers.emplace_back([&, seed = seeded(~std::uint64_t{0})] { make_buffers(pool, queue, seed); });
  }
  for (int i = 0; i < kTakers; ++i) {
    takers.emplace_back([&] { wrong += take_buffers(pool, queue); });
  }
  std::thread reclaimer([&] {
    while (!done) {
      pool.purge();
      pool.trim();
      CHECK(pool.stats().populated <= pool.stats().capacity);
      std::this_thread::yield();
    }
  });
  for (std::thread& maker : makers) {
    maker.join();
  }
  for (int i = 0; i < kTakers; ++i) {
    queue.push({});
  }
  for (std::thread& taker : takers) {
    taker.join();
  }
  done = true;
  reclaimer.join();
  CHECK(wrong == 0);
  CHECK(all_is_free(pool));
  constexpr std::uint64_t kFrees = kMakers * kBuffersEach;
  CHECK(pool.stats().frees >= kFrees);
  CHECK(pool.stats().frees <= kFrees + kFrees / 100);  // A restarted sequence counts twice.
  pool.audit();
}
