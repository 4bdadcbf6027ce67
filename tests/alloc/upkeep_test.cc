// What a pool's thread does in its rounds, made by hand in virtual time.
#include <doctest/doctest.h>

#include <algorithm>

#include "cpu_pin.h"
#include "keel/base/mutex.h"
#include "pool_support.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kTenthNs = 100'000'000;

struct Fixture {
  Fixture() {
    os.use_virtual_time();
    pool = make_pool({.capacity_bytes = 64 * kMiB, .window_bytes = 256 * kMiB});
  }
  // As many rounds as the thread would make.
  void pass(unsigned tenths) {
    for (unsigned i = 0; i < tenths; ++i) {
      os.sleep_ns(kTenthNs);
      pool->upkeep();
    }
  }
  FaultOs os;
  ScopedOs scope{os};
  std::unique_ptr<Pool> pool;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "rounds populate ahead, so that callers need not") {
  pass(1);
  CHECK(pool->stats().free >= Bytes(kMiB));
  CHECK(pool->stats().keeper_growths > 0);
  std::vector<void*> buffers;
  while (pool->stats().live < Bytes(40 * kMiB)) {
    for (int i = 0; i < 8; ++i) {
      buffers.push_back(pool->kvmalloc(64U << 10));
      REQUIRE(buffers.back() != nullptr);
    }
    pass(1);
  }
  CHECK(pool->stats().inline_growths == 0);
  free_all(*pool, buffers);
}

TEST_CASE_FIXTURE(Fixture, "memory that the last seconds did not use goes back, chunk by chunk") {
  std::vector<void*> buffers;
  for (int i = 0; i < 48; ++i) {
    buffers.push_back(pool->kvmalloc(kMiB));
  }
  REQUIRE(pool->stats().populated >= Bytes(48 * kMiB));
  pass(50);
  CHECK(pool->stats().trimmed_chunks == 0);
  free_all(*pool, buffers);
  pass(25);
  CHECK(pool->stats().trimmed_chunks == 0);
  CHECK(pool->stats().populated >= Bytes(48 * kMiB));
  pass(120);
  CHECK(pool->stats().populated <= Bytes(5 * kMiB));
  CHECK(pool->stats().cached == Bytes(0));
  CHECK(pool->stats().free >= Bytes(kMiB));
  pool->audit();
}

TEST_CASE_FIXTURE(Fixture, "memory that is needed now and then is kept") {
  for (int round = 0; round < 10; ++round) {
    void* buffer = pool->kvmalloc(30 * kMiB);
    REQUIRE(buffer != nullptr);
    pass(5);
    pool->kvfree(buffer);
    pass(10);
  }
  CHECK(pool->stats().trimmed_chunks == 0);
}

TEST_CASE_FIXTURE(Fixture, "what was reserved stays, until a trim gives all of it back") {
  REQUIRE(pool->reserve(Bytes(20 * kMiB)).ok());
  pass(150);
  CHECK(pool->stats().free >= Bytes(20 * kMiB));
  CHECK(pool->stats().trimmed_chunks == 0);
  CHECK(pool->trim() >= Bytes(20 * kMiB));
  CHECK(pool->stats().populated == Bytes(0));
  pass(150);
  CHECK(pool->stats().populated <= Bytes(3 * kMiB));
}

TEST_CASE_FIXTURE(Fixture, "what is populated beyond what was reserved goes back") {
  std::vector<void*> buffers = fill(*pool, kMiB);
  free_all(*pool, buffers);
  REQUIRE(pool->reserve(Bytes(8 * kMiB)).ok());
  pass(150);
  CHECK(pool->stats().free >= Bytes(8 * kMiB));
  CHECK(pool->stats().populated <= Bytes(13 * kMiB));
  // What was reserved before stays beside it.
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  pass(150);
  CHECK(pool->stats().free >= Bytes(8 * kMiB));
}

TEST_CASE_FIXTURE(Fixture, "initial memory stays as reserved memory does") {
  pool = make_pool(
      {.capacity_bytes = 64 * kMiB, .window_bytes = 256 * kMiB, .initial_bytes = 16 * kMiB});
  pass(150);
  CHECK(pool->stats().populated == Bytes(16 * kMiB));
}

TEST_CASE_FIXTURE(Fixture,
                  "reserving serves the allocations that follow, and fails beyond the cap") {
  const Messages messages;
  REQUIRE(pool->reserve(Bytes(30 * kMiB)).ok());
  void* buffer = pool->kvmalloc(30 * kMiB);
  CHECK(buffer != nullptr);
  CHECK(pool->stats().inline_growths == 0);
  CHECK(pool->reserve(Bytes(40 * kMiB)).error().code == Errc::kNoMemory);
  pool->kvfree(buffer);
  // All of it in idle buffers: they make room.
  auto buffers = fill(*pool, 4 * kPage);
  pool->kvfree(buffers.back());  // not one by one past the cache
  buffers.pop_back();
  free_all(*pool, buffers);
  REQUIRE(pool->stats().cached > Bytes(0));
  CHECK(pool->reserve(Bytes(64 * kMiB)).ok());
  CHECK(pool->stats().free == Bytes(64 * kMiB));
  pool->audit();
}

TEST_CASE_FIXTURE(Fixture, "rounds at the cap ask the shrinkers before callers must") {
  const Messages messages;
  auto buffers = fill(*pool, kMiB);
  Mutex outermost(LockRank::kJournalContext);
  FunctionShrinker shrinker([&](Bytes wanted) {
    const MutexLock lock(outermost);  // Nothing of the pool is locked meanwhile.
    Bytes given{};
    while (given < wanted) {
      pool->kvfree(buffers.back());
      buffers.pop_back();
      given += Bytes(kMiB);
    }
    return given;
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  pass(1);
  CHECK(shrinker.calls == 1);
  CHECK(buffers.size() < 64);
  pass(10);
  CHECK(shrinker.calls <= 2);
  pool->remove_shrinker(shrinker);
  free_all(*pool, buffers);
}

TEST_CASE_FIXTURE(Fixture, "rounds purge what many unmapped buffers left") {
  std::vector<void*> buffers;
  for (int i = 0; i < 3; ++i) {
    buffers.push_back(pool->kvmalloc(10 * kMiB));
    REQUIRE(buffers.back() != nullptr);
  }
  free_all(*pool, buffers);
  REQUIRE(pool->stats().lazy >= Bytes(30 * kMiB));
  pass(1);
  CHECK(pool->stats().lazy <= Bytes(16 * kMiB));
  pool->audit();
}

TEST_CASE_FIXTURE(Fixture, "rounds take apart idle buffers that nobody uses, and only those") {
  const Pinned here;  // Idle buffers lie on the stack of the CPU that freed them.
  std::vector<void*> buffers;
  for (int i = 0; i < 40; ++i) {
    buffers.push_back(pool->kvmalloc(2 * kPage));
  }
  void* busy = pool->kvmalloc(5 * kPage);
  free_all(*pool, buffers);
  pool->kvfree(busy);
  REQUIRE(pool->stats().cached >= Bytes(80 * kPage));
  for (int i = 0; i < 80; ++i) {
    pass(1);
    pool->kvfree(pool->kvmalloc(5 * kPage));
  }
  CHECK(pool->stats().cached <= Bytes(5 * kPage));
  CHECK(pool->stats().contiguous_allocations <= 43);  // The busy one was hardly ever made anew.
  pool->audit();
}

TEST_CASE_FIXTURE(Fixture,
                  "much unused memory goes back slice by slice, and no round takes all of it") {
  pool = make_pool(
      {.capacity_bytes = 64 * kMiB, .chunk_bytes = 256U << 10, .window_bytes = 256 * kMiB});
  std::vector<void*> buffers = fill(*pool, kMiB);
  free_all(*pool, buffers);
  std::uint64_t most = 0;
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t before = pool->stats().trimmed_chunks;
    pass(1);
    most = std::max(most, pool->stats().trimmed_chunks - before);
  }
  CHECK(most == 64);  // 16 slices of 4 chunks: a round ends, whatever there is.
  CHECK(pool->stats().populated <= Bytes(4 * kMiB));
  pool->audit();
}

TEST_CASE_FIXTURE(Fixture, "free memory of which no chunk is whole stays, and rounds end") {
  pool = make_pool(
      {.capacity_bytes = 64 * kMiB, .chunk_bytes = 256U << 10, .window_bytes = 256 * kMiB});
  std::vector<void*> pages = fill(*pool, kPage);
  std::vector<void*> kept;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (i % 32 == 0) {
      kept.push_back(pages[i]);  // at least one in each chunk
    } else {
      pool->kvfree(pages[i]);
    }
  }
  pass(120);
  CHECK(pool->stats().trimmed_chunks == 0);
  CHECK(pool->stats().free >= Bytes(48 * kMiB));
  free_all(*pool, kept);
  pass(120);
  CHECK(pool->stats().populated <= Bytes(4 * kMiB));
  pool->audit();
}

TEST_CASE_FIXTURE(Fixture, "slabs that small objects have left go back, and those in use stay") {
  REQUIRE(pool->reserve(Bytes(20 * kMiB)).ok());
  std::vector<void*> objects;
  for (int i = 0; i < 16'000; ++i) {
    objects.push_back(pool->kvmalloc(1024));
    REQUIRE(pool->kvsize(objects.back()) == 1024);
  }
  REQUIRE(pool->stats().cached < Bytes(kMiB));
  free_every_second(*pool, objects);
  pass(50);
  // Half of each slab is unused and none can go.
  CHECK(pool->stats().cached >= Bytes(7 * kMiB));
  free_all(*pool, objects);
  pass(50);
  CHECK(pool->stats().cached <= Bytes(2 * kMiB));
  CHECK(pool->stats().free >= Bytes(19 * kMiB));
  pool->audit();
}
