// Hardened pools: overruns, uses after free, the quarantine.
#include <doctest/doctest.h>

#include <csignal>
#include <thread>

#include "hardened.h"
#include "pool_support.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

std::unique_ptr<Pool> make(std::size_t quarantine = 2 * kMiB, std::size_t capacity = 16 * kMiB) {
  return make_pool({.capacity_bytes = capacity,
                    .window_bytes = 64 * kMiB,
                    .hardened = true,
                    .quarantine_bytes = quarantine});
}

unsigned char* get(Pool& pool, std::size_t size, AllocFlags flags = AllocFlags::kKernel) {
  return static_cast<unsigned char*>(pool.kvmalloc(size, flags, "guarded"));
}

// AddressSanitizer sees what these tests do before a hardened pool can.
#if defined(KEEL_TEST_SANITIZED)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace

TEST_CASE("a byte written behind a buffer is reported when it is freed, the first one that was") {
  if (kSanitized) {
    keel_test::skip_case("a sanitizer has other memory beside the buffer");
    return;
  }
  BugRecorder bugs;
  const auto pool = make();
  for (const std::size_t size : {std::size_t{1}, 100UL, 4095UL, 5 * kMiB + 7}) {
    for (const std::size_t beyond : {std::size_t{0}, kPage - 1 - size % kPage}) {
      auto* buffer = get(*pool, size);
      REQUIRE(buffer != nullptr);
      std::memset(buffer, 0xa5, size);
      const unsigned char before = buffer[size + beyond];
      buffer[size + beyond] = 1;
      const PoolStats stats = pool->stats();
      pool->kvfree(buffer);
      REQUIRE(bugs.count() == 1);
      const BugReport report = bugs.take();
      CHECK(report.bug == Bug::kOverrun);
      CHECK(report.address == reinterpret_cast<std::uintptr_t>(buffer + size + beyond));
      CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(buffer));
      CHECK(report.area_bytes == size);
      CHECK(report.owner == doctest::String("guarded"));
      CHECK(pool->stats().live == stats.live);
      buffer[size + beyond] = before;
      pool->kvfree(buffer);
      CHECK(bugs.count() == 0);
    }
  }
  pool->audit();
}

TEST_CASE("a whole buffer may be used, cleared or not, and is freed without a word") {
  BugRecorder bugs;
  const auto pool = make();
  for (const AllocFlags flags : {AllocFlags::kKernel, AllocFlags::kZero}) {
    for (const std::size_t size : {std::size_t{1}, 100UL, 4096UL, 10'000UL, 5 * kMiB + 7}) {
      auto* buffer = get(*pool, size, flags);
      REQUIRE(buffer != nullptr);
      CHECK((flags != AllocFlags::kZero || all_bytes_are(buffer, size, 0)));
      CHECK(pool->kvsize(buffer) == size);
      std::memset(buffer, 0xff, size);
      pool->kvfree(buffer);
      CHECK(bugs.count() == 0);
    }
  }
  pool->audit();
}

TEST_CASE("one page behind a buffer nothing can be written") {
  if (kSanitized) {
    keel_test::skip_case("a sanitizer has other memory beside the buffer");
    return;
  }
  const auto pool = make();
  auto* buffer = get(*pool, 3 * kPage);
  CHECK(run_in_child([&] {
          const auto mine = make();
          auto* at = get(*mine, 3 * kPage);
          at[3 * kPage - 1] = 1;
          at[3 * kPage] = 1;
        }).signal == SIGSEGV);
  pool->kvfree(buffer);
}

TEST_CASE("a freed buffer can be neither read nor written, for as long as it is quarantined") {
  if (kSanitized) {
    keel_test::skip_case("a sanitizer has other memory beside the buffer");
    return;
  }
  for (const bool writes : {false, true}) {
    const auto ending = run_in_child([&] {
      const auto pool = make();
      volatile unsigned char* buffer = get(*pool, 10'000);
      buffer[9'999] = 7;
      pool->kvfree(const_cast<unsigned char*>(buffer));
      for (int i = 0; i < 50; ++i) {
        pool->kvfree(get(*pool, 8 * kPage));  // 1.6 MiB
      }
      if (writes) {
        buffer[9'999] = 8;
      } else {
        (void)buffer[0];
      }
    });
    CHECK(ending.signal == SIGSEGV);
  }
}

TEST_CASE("a second free is told while the first is in the quarantine, and after it too") {
  BugRecorder bugs;
  const auto pool = make(64 * kPage);
  auto* buffer = get(*pool, 3 * kPage);
  pool->kvfree(buffer);
  const auto expect_double = [&] {
    pool->kvfree(buffer);
    REQUIRE(bugs.count() == 1);
    const BugReport report = bugs.take();
    CHECK(report.bug == Bug::kDoubleFree);
    CHECK(report.area_bytes == 3 * kPage);
    CHECK(report.owner == doctest::String("guarded"));
    pool->audit();
  };
  expect_double();
  for (int i = 0; i < 100; ++i) {
    pool->kvfree(get(*pool, 5 * kPage));
  }
  expect_double();
  CHECK(bugs.count() == 0);
}

TEST_CASE("the quarantine is bounded in bytes, and full of the newest") {
  const auto pool = make(kMiB);
  for (int i = 0; i < 500; ++i) {
    pool->kvfree(get(*pool, 16 * kPage));
    const PoolStats stats = pool->stats();
    REQUIRE(stats.quarantined <= Bytes(kMiB + 16 * kPage));
    check_adds_up(stats);
  }
  CHECK(pool->stats().quarantined >= Bytes(kMiB));
  CHECK(pool->stats().live == Bytes(0));
  pool->audit();
}

TEST_CASE("the quarantine is bounded in buffers") {
  const auto pool = make(std::size_t{1} << 30, 64 * kMiB);
  for (unsigned i = 0; i < 3 * Hardened::kSlots / 2; ++i) {
    pool->kvfree(get(*pool, 1));
  }
  CHECK(pool->stats().quarantined <= Bytes(Hardened::kSlots * kPage));
  pool->audit();
}

TEST_CASE("memory in the quarantine is had when there is no other") {
  const Messages messages;
  const auto pool = make(std::size_t{1} << 30, 4 * kMiB);
  for (int round = 0; round < 4; ++round) {
    auto buffers = fill(*pool, 16 * kPage);
    CHECK(buffers.size() == 64);
    free_all(*pool, buffers);
    CHECK(pool->stats().quarantined == Bytes(4 * kMiB));
  }
  auto* large = get(*pool, 3 * kMiB);
  CHECK(large != nullptr);
  pool->kvfree(large);
  pool->audit();
}

TEST_CASE("buffers that went through the quarantine can be written again, at any address") {
  const auto pool = make(0, 4 * kMiB);
  for (int i = 0; i < 300; ++i) {
    auto* buffer = get(*pool, (1 + static_cast<std::size_t>(i) % 40) * kPage);
    REQUIRE(buffer != nullptr);
    std::memset(buffer, i, pool->kvsize(buffer));
    pool->kvfree(buffer);
    if (i % 50 == 0) {
      pool->purge();
    }
  }
  pool->audit();
}

TEST_CASE("a hardened pool works on when the kernel will not protect a freed buffer") {
  FaultOs os;
  const ScopedOs scope(os);
  const auto pool = make();
  auto* buffer = get(*pool, 3 * kPage);
  os.fail_from(1, mask_of(OsCall::kMprotect));
  pool->kvfree(buffer);
  CHECK(os.fired());
  os.disarm();
  CHECK(pool->stats().quarantined == Bytes(3 * kPage));
  pool->audit();
}

TEST_CASE("kNoFail of what a hardened pool's window cannot hold is refused at once") {
  const Messages messages;
  const auto pool =
      make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 2 * kMiB, .hardened = true});
  CHECK(pool->kvmalloc(3 * kMiB, AllocFlags::kNoFail) == nullptr);
}

TEST_CASE("hardened buffers move with kvrealloc, and keep exactly what was asked for") {
  BugRecorder bugs;
  const auto pool = make();
  auto* buffer = get(*pool, 5000);
  std::memset(buffer, 0x42, 5000);
  auto* moved = static_cast<unsigned char*>(pool->kvrealloc(buffer, 6000));
  REQUIRE(moved != nullptr);
  CHECK(all_bytes_are(moved, 5000, 0x42));
  std::memset(moved, 1, 6000);
  pool->kvfree_sized(moved, 6000);
  CHECK(bugs.count() == 0);
  CHECK(pool->stats().live == Bytes(0));
}

TEST_CASE("trim gives back what the quarantine does not hold") {
  const auto pool = make(2 * kMiB);
  std::vector<void*> buffers;
  for (int i = 0; i < 40; ++i) {
    buffers.push_back(get(*pool, 64 * kPage));
  }
  free_all(*pool, buffers);
  CHECK(pool->trim() > Bytes(0));
  CHECK(pool->stats().quarantined >= Bytes(2 * kMiB));
  pool->audit();
}

TEST_CASE("threads of a hardened pool share one quarantine") {
  const auto pool = make(kMiB, 32 * kMiB);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&pool] {
      for (std::size_t i = 0; i < 300; ++i) {
        auto* buffer = get(*pool, 1 + i * 50 % 60'000);
        CHECK(buffer != nullptr);
        buffer[i * 50 % 60'000] = 1;
        pool->kvfree(buffer);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(pool->stats().live == Bytes(0));
  pool->audit();
}
