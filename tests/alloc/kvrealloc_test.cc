// kvrealloc, kvsize and kvfree_sized.
#include <doctest/doctest.h>
#include <unistd.h>

#include "cpu_pin.h"
#include "pool_support.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_test;

namespace {

std::unique_ptr<Pool> make() {
  return make_pool({.capacity_bytes = 32 * kMiB, .window_bytes = 128 * kMiB});
}

unsigned char* filled(Pool& pool, std::size_t size, unsigned char value) {
  auto* buffer = static_cast<unsigned char*>(pool.kvmalloc(size));
  REQUIRE(buffer != nullptr);
  std::memset(buffer, value, size);
  return buffer;
}

}  // namespace

TEST_CASE("a buffer grows in place to the end of its last page") {
  const auto pool = make();
  auto* buffer = filled(*pool, 5000, 7);
  CHECK(pool->kvrealloc(buffer, 8192) == buffer);
  CHECK(all_bytes_are(buffer, 5000, 7));
  CHECK(pool->kvrealloc(buffer, 4097) == buffer);
  pool->kvfree_sized(buffer, 4097);
  CHECK(pool->stats().live == Bytes(0));
}

TEST_CASE("a buffer that is zeroed as it grows in place keeps what it had, also when it shrinks") {
  const auto pool = make();
  auto* buffer = filled(*pool, 8192, 9);
  CHECK(pool->kvrealloc(buffer, 5000, AllocFlags::kZero) == buffer);
  CHECK(all_bytes_are(buffer, 5000, 9));
  CHECK(pool->kvrealloc(buffer, 8192, AllocFlags::kZero) == buffer);
  CHECK(all_bytes_are(buffer, 5000, 9));
  CHECK(all_bytes_are(buffer + 5000, 8192 - 5000, 0));
  pool->kvfree(buffer);
}

TEST_CASE("a buffer becomes smaller where it stands if there is nothing to move it to") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  int sleeps = 0;
  std::vector<void*> rest;
  const auto pool = make();
  os.use_virtual_time([&] {
    if (++sleeps == 50) {
      free_all(*pool, rest);  // So that who waits in vain ends.
    }
  });
  for (const AllocFlags flags : {AllocFlags::kKernel, AllocFlags::kNoFail, AllocFlags::kNoWait}) {
    auto* buffer = filled(*pool, 100 * kPage, 9);
    const std::size_t held = pool->kvsize(buffer);
    rest = fill(*pool, kPage);
    CHECK(pool->kvrealloc(buffer, 5000, flags) == buffer);
    CHECK(pool->kvsize(buffer) == held);
    CHECK(all_bytes_are(buffer, 5000, 9));
    CHECK(pool->kvrealloc(buffer, 7000, flags | AllocFlags::kZero) == buffer);
    CHECK(all_bytes_are(buffer, 5000, 9));
    CHECK(all_bytes_are(buffer + 5000, 2000, 0));
    CHECK(pool->kvrealloc(buffer, 0, flags) == nullptr);
    free_all(*pool, rest);
    auto* moved = static_cast<unsigned char*>(pool->kvrealloc(buffer, 4000));
    CHECK(moved != buffer);
    CHECK(all_bytes_are(moved, 4000, 9));
    pool->kvfree_sized(moved, 4000);
  }
  CHECK(sleeps == 0);
  CHECK(Messages::lines().empty());
  CHECK(pool->stats().live == Bytes(0));
  pool->audit();
}

TEST_CASE("a buffer that no longer fits moves, in whatever tiers it was and is") {
  const auto pool = make();
  for (const std::size_t from : {std::size_t{100}, 70'000UL, kMiB, 6 * kMiB}) {
    for (const std::size_t to : {std::size_t{200}, 65'536UL, 3 * kMiB, 9 * kMiB}) {
      auto* buffer = filled(*pool, from, 0x5c);
      auto* moved = static_cast<unsigned char*>(pool->kvrealloc(buffer, to));
      REQUIRE(moved != nullptr);
      CHECK(all_bytes_are(moved, std::min(from, to), 0x5c));
      std::memset(moved, 1, to);
      CHECK(pool->stats().live == Bytes(pool->kvsize(moved)));
      pool->kvfree_sized(moved, to);
    }
  }
  pool->audit();
}

TEST_CASE("a buffer that shrinks to less than half gives the memory back") {
  const auto pool = make();
  auto* buffer = filled(*pool, kMiB, 3);
  auto* smaller = static_cast<unsigned char*>(pool->kvrealloc(buffer, kMiB / 4));
  REQUIRE(smaller != nullptr);
  CHECK(smaller != buffer);
  CHECK(all_bytes_are(smaller, kMiB / 4, 3));
  CHECK(pool->stats().live == Bytes(kMiB / 4));
  pool->kvfree(smaller);
}

TEST_CASE("nullptr is allocated, and size 0 is refused with the buffer kept") {
  const Messages messages;
  const auto pool = make();
  auto* buffer = static_cast<unsigned char*>(pool->kvrealloc(nullptr, 100));
  REQUIRE(buffer != nullptr);
  buffer[99] = 4;
  CHECK(pool->kvrealloc(buffer, 0) == nullptr);
  CHECK(buffer[99] == 4);
  pool->kvfree(buffer);
  CHECK(pool->stats().live == Bytes(0));
}

TEST_CASE("kZero clears what a buffer of pages grows by, in place and when it moves") {
  const auto pool = make();
  for (const std::size_t to : {std::size_t{8000}, 100'000UL, 6 * kMiB}) {
    auto* dirty = filled(*pool, to, 0xee);
    pool->kvfree(dirty);
    dirty = filled(*pool, 8192, 0xee);
    pool->kvfree(dirty);
    auto* buffer = filled(*pool, 5000, 0x11);
    auto* grown = static_cast<unsigned char*>(pool->kvrealloc(buffer, to, AllocFlags::kZero));
    REQUIRE(grown != nullptr);
    CHECK(all_bytes_are(grown, 5000, 0x11));
    CHECK(all_bytes_are(grown + 5000, to - 5000, 0));
    pool->kvfree(grown);
  }
}

TEST_CASE("a small object that had kZero from the first call on grows by zeroes") {
  const Pinned here;  // Idle buffers lie on the stack of the CPU that freed them.
  const auto pool = make();
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  for (const std::size_t to : {std::size_t{112}, std::size_t{200}, std::size_t{5000}}) {
    auto* dirty = filled(*pool, 112, 0xee);
    pool->kvfree(dirty);
    auto* object = static_cast<unsigned char*>(pool->kvmalloc(100, AllocFlags::kZero));
    REQUIRE(object == dirty);
    REQUIRE(pool->kvsize(object) == 112);
    std::memset(object, 0x11, 100);
    auto* grown = static_cast<unsigned char*>(pool->kvrealloc(object, to, AllocFlags::kZero));
    REQUIRE(grown != nullptr);
    CHECK(all_bytes_are(grown, 100, 0x11));
    CHECK(all_bytes_are(grown + 100, to - 100, 0));
    pool->kvfree(grown);
  }
}

TEST_CASE("who asked for the usable size keeps what was written up to it") {
  const auto pool = make();
  auto* buffer = filled(*pool, 5000, 0x11);
  std::memset(buffer, 0x22, pool->kvsize(buffer));
  auto* moved = static_cast<unsigned char*>(pool->kvrealloc(buffer, 100'000));
  REQUIRE(moved != nullptr);
  CHECK(all_bytes_are(moved, 8192, 0x22));
  pool->kvfree(moved);
}

TEST_CASE(
    "a buffer does not grow beyond the limit of a buffer, even where its pages reach further") {
  const Messages messages;
  const auto pool = make_pool({.capacity_bytes = 2 * kMiB, .kvmalloc_max_bytes = 5000});
  auto* buffer = filled(*pool, 4500, 0x3d);
  REQUIRE(pool->kvsize(buffer) == 8192);
  CHECK(pool->kvrealloc(buffer, 5000) == buffer);
  REQUIRE(pool->kvrealloc(buffer, 5001) == nullptr);
  CHECK(all_bytes_are(buffer, 4500, 0x3d));
  pool->kvfree_sized(buffer, 5000);
  CHECK(pool->stats().live == Bytes(0));
}

TEST_CASE("a reallocation that fails leaves the old buffer as it was") {
  const Messages messages;
  const auto pool = make();
  auto* buffer = filled(*pool, 6 * kMiB, 0x3d);
  const PoolStats before = pool->stats();
  CHECK(pool->kvrealloc(buffer, 31 * kMiB) == nullptr);
  CHECK(pool->kvrealloc(buffer, SIZE_MAX) == nullptr);
  CHECK(pool->kvrealloc(buffer, 9 * kMiB, AllocFlags::kNoWait) == nullptr);
  CHECK(all_bytes_are(buffer, 6 * kMiB, 0x3d));
  CHECK(pool->stats().live == before.live);
  pool->kvfree_sized(buffer, 6 * kMiB);
  pool->audit();
}

TEST_CASE("kvsize tells what may be used, and 0 of nothing") {
  const auto pool = make();
  CHECK(pool->kvsize(nullptr) == 0);
  for (const std::size_t size : {std::size_t{1}, 4096UL, 4097UL, 4 * kMiB, 5 * kMiB + 1}) {
    auto* buffer = filled(*pool, size, 1);
    CHECK(pool->kvsize(buffer) >= size);
    CHECK(pool->kvsize(buffer) % kPage == 0);
    std::memset(buffer, 2, pool->kvsize(buffer));
    pool->kvfree(buffer);
  }
}

TEST_CASE("a buffer freed with the wrong size is reported and stays, with the right one it goes") {
  BugRecorder bugs;
  const auto pool = make();
  for (const std::size_t size : {std::size_t{5000}, 6 * kMiB}) {
    void* buffer = pool->kvmalloc(size, AllocFlags::kKernel, "sized");
    for (const std::size_t wrong : {size - 1, size + 1, std::size_t{0}, pool->kvsize(buffer) + 1,
                                    size + (std::size_t{1} << 32)}) {
      pool->kvfree_sized(buffer, wrong);
      REQUIRE(bugs.count() == 1);
      const BugReport report = bugs.take();
      CHECK(report.bug == Bug::kWrongSize);
      CHECK(report.area_bytes == size);
      CHECK(report.owner == doctest::String("sized"));
      CHECK(pool->stats().live == Bytes(pool->kvsize(buffer)));
    }
    pool->kvfree_sized(buffer, size);
    CHECK(bugs.count() == 0);
    CHECK(pool->stats().live == Bytes(0));
  }
  pool->kvfree_sized(nullptr, 100);
  CHECK(bugs.count() == 0);
}

TEST_CASE("a small object freed with a size of another class is reported and stays") {
  BugRecorder bugs;
  const auto pool = make();
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  void* object = pool->kvmalloc(100);
  const std::size_t held = pool->kvsize(object);
  REQUIRE(held < kPage);
  for (const std::size_t wrong : {std::size_t{0}, std::size_t{16}, held + 1, 2 * kPage}) {
    CAPTURE(wrong);
    pool->kvfree_sized(object, wrong);
    REQUIRE(bugs.count() == 1);
    const BugReport report = bugs.take();
    CHECK(report.bug == Bug::kWrongSize);
    CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(object));
    CHECK(pool->kvsize(object) == held);
  }
  pool->kvfree_sized(object, 100);
  CHECK(bugs.count() == 0);
  CHECK(pool->stats().small == Bytes(0));
}

TEST_CASE("a wrong address given to kvrealloc is a reported bug") {
  BugRecorder bugs;
  const auto pool = make();
  auto* buffer = filled(*pool, 9000, 9);
  CHECK(pool->kvrealloc(buffer + kPage, 100) == nullptr);
  CHECK(bugs.take().bug == Bug::kInteriorPointer);
  pool->kvfree(buffer);
  CHECK(pool->kvrealloc(buffer, 100) == nullptr);
  const BugReport report = bugs.take();
  CHECK(report.bug == Bug::kDoubleFree);
  CHECK(report.call == doctest::String("kvrealloc"));
  CHECK(bugs.count() == 0);
}

TEST_CASE("in a forked child a parent's buffer is left alone by all of these calls") {
  const auto pool = make();
  auto* buffer = filled(*pool, 9000, 9);
  const auto ending = run_in_child([&] {
    bool right = pool->kvrealloc(buffer, 100'000) == nullptr && pool->kvsize(buffer) == 0;
    right = right && pool->kvrealloc(buffer, 9001) == nullptr;
    pool->kvfree_sized(buffer, 9000);
    pool->kvfree_sized(buffer, 1);
    right = right && !pool->reserve(Bytes(kMiB)).ok();
    pool->upkeep();
    (void)pool->stats();
    _exit(right ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  CHECK(ending.errors == "");
  CHECK(all_bytes_are(buffer, 9000, 9));
  pool->kvfree(buffer);
}
