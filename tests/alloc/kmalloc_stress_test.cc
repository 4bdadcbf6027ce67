// Small objects made on some threads and freed on others, threads that die, releases all the while;
// and two threads that free the same object.
#include <doctest/doctest.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "kmalloc.h"
#include "support/extent_memory.h"
#include "support/seeded.h"

using namespace keel;

namespace {

constexpr int kPairs = 4;
constexpr std::uint64_t kObjectsEach = 60'000;
constexpr std::size_t kRing = 512;

std::unique_ptr<Kmalloc> make(keel_test::ExtentMemory& memory,
                              KmallocBackend backend = KmallocBackend::kSlabs) {
  auto made = Kmalloc::create({memory.base(), memory.capacity(), &memory, backend});
  REQUIRE(made.ok());
  return std::move(*made);
}

// From one thread to one other.
struct Ring {
  std::array<std::atomic<unsigned char*>, kRing> slots{};
};

void produce(Kmalloc& kmalloc, Ring& ring, std::uint64_t seed, std::uint16_t tag) {
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < kObjectsEach; ++i) {
    const std::size_t size = 1 + random() % (random() % 4 == 0 ? kKmallocMaxBytes : 200);
    unsigned char* object = nullptr;
    while ((object = static_cast<unsigned char*>(kmalloc.allocate(size, tag))) == nullptr) {
      std::this_thread::yield();
    }
    std::memset(object, tag, size);
    auto& slot = ring.slots[i % kRing];
    // Release and acquire: what was written to the object goes with it.
    while (slot.load(std::memory_order_acquire) != nullptr) {
      std::this_thread::yield();
    }
    slot.store(object, std::memory_order_release);
  }
}

int consume(Kmalloc& kmalloc, Ring& ring, std::uint16_t tag) {
  int wrong = 0;
  for (std::uint64_t i = 0; i < kObjectsEach; ++i) {
    auto& slot = ring.slots[i % kRing];
    unsigned char* object = nullptr;
    while ((object = slot.load(std::memory_order_acquire)) == nullptr) {
      std::this_thread::yield();
    }
    slot.store(nullptr, std::memory_order_release);
    wrong += object[0] == tag ? 0 : 1;
    const KmallocObject freed = kmalloc.free(object);
    wrong += freed.outcome == KmallocOutcome::kOk && freed.tag == tag ? 0 : 1;
  }
  return wrong;
}

// Each object is freed by two threads at one time. Fewer rounds where a neighbour has the CPU for
// whole slices: each round then takes some.
void free_by_two(KmallocBackend backend, int most_rounds) {
  constexpr int kLeastRounds = 100;
  const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  keel_test::ExtentMemory memory{Pages(512)};
  const auto kmalloc = make(memory, backend);
  void* shared = nullptr;
  bool over = false;
  std::atomic<int> here{0};
  std::barrier meeting(3);
  std::array<std::atomic<int>, 4> outcomes{};
  const auto free_each = [&](int late) {
    for (int round = 0;; ++round) {
      meeting.arrive_and_wait();  // the object is there
      if (over) {
        return;
      }
      // A barrier wakes its threads microseconds apart; what is tested takes nanoseconds.
      ++here;
      for (int spins = 0; here.load() < 2 * (round + 1); ++spins) {
        if (spins > 10'000) std::this_thread::yield();
      }
      // Who came first sees it late, by what a cache line takes between two CPUs.
      for (int pause = late * (round % 100); pause > 0; --pause) {
        (void)here.load();
      }
      ++outcomes[static_cast<unsigned>(kmalloc->free(shared).outcome)];
      meeting.arrive_and_wait();  // both have tried
    }
  };
  std::thread a(free_each, 0);
  std::thread b(free_each, 1);
  int rounds = 0;
  for (;
       rounds < most_rounds && (rounds < kLeastRounds || std::chrono::steady_clock::now() < enough);
       ++rounds) {
    shared = kmalloc->allocate(96, 1);
    meeting.arrive_and_wait();
    meeting.arrive_and_wait();
  }
  over = true;
  meeting.arrive_and_wait();
  a.join();
  b.join();
  CHECK(outcomes[static_cast<unsigned>(KmallocOutcome::kOk)] == rounds);
  CHECK(outcomes[static_cast<unsigned>(KmallocOutcome::kDouble)] == rounds);
  kmalloc->audit();
}

}  // namespace

TEST_CASE("small objects are freed on other threads while slabs go back and forth") {
  keel_test::Seeded seeded("kmalloc stress");
  keel_test::ExtentMemory memory{Pages(2048)};
  const auto kmalloc = make(memory);
  std::array<Ring, kPairs> rings;
  std::atomic<int> wrong{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (std::uint16_t i = 0; i < kPairs; ++i) {
    threads.emplace_back(
        [&, i, seed = seeded(~std::uint64_t{0})] { produce(*kmalloc, rings[i], seed, i); });
    threads.emplace_back([&, i] { wrong += consume(*kmalloc, rings[i], i); });
  }
  std::thread releaser([&] {
    while (!done) {
      kmalloc->release();
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  done = true;
  releaser.join();
  CHECK(wrong == 0);
  CHECK(kmalloc->stats().frees == kPairs * kObjectsEach);
  kmalloc->audit();
  kmalloc->release();
  CHECK(memory.held() == 0);
}

TEST_CASE("threads that die leave nothing in caches of their own") {
  keel_test::ExtentMemory memory{Pages(512)};
  const auto kmalloc = make(memory);
  for (int i = 0; i < 200; ++i) {
    std::thread([&] {
      std::array<void*, 50> objects{};
      for (void*& object : objects) {
        object = kmalloc->allocate(512, 1);
      }
      for (void* object : objects) {
        (void)kmalloc->free(object);
      }
    }).join();
  }
  CHECK(memory.held() < 64);
  kmalloc->release();
  CHECK(memory.held() == 0);
}

TEST_CASE("of two threads that free one object, one is told that it did") {
  free_by_two(KmallocBackend::kSlabs, 40'000);
}

TEST_CASE("of two threads that free one object of the system's, one is told that it did") {
  free_by_two(KmallocBackend::kSystem, 4'000);
}

TEST_CASE("a thread that finds its CPU's cache in use goes past it, and does not wait") {
  // Both threads on one CPU; the first is inside the source, with the cache claimed, while the
  // second allocates and frees.
  cpu_set_t all;
  cpu_set_t one;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(sched_getcpu()), &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  keel_test::ExtentMemory memory{Pages(512)};
  const auto kmalloc = make(memory);
  void* first = kmalloc->allocate(2000, 1);  // there is a slab for the second thread
  std::array<void*, 2> objects{};
  bool done = false;
  memory.on_allocate([&] {
    if (done) {
      return;
    }
    done = true;
    std::thread([&] {
      objects[0] = kmalloc->allocate(2000, 2);
      objects[1] = kmalloc->allocate(2000, 3);
      CHECK(kmalloc->free(objects[1]).outcome == KmallocOutcome::kOk);
    }).join();
  });
  void* object = kmalloc->allocate(100, 1);
  CHECK(kmalloc->stats().bypasses == 3);
  REQUIRE(objects[0] != nullptr);
  kmalloc->audit();
  for (void* held : {first, object, objects[0]}) {
    CHECK(kmalloc->free(held).outcome == KmallocOutcome::kOk);
  }
  kmalloc->audit();
  kmalloc->release();
  CHECK(memory.held() == 0);
  CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}
