// Objects below a page as a pool's caller has them: wrong frees, sizes that change, whose they are.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "keel/base/scopes.h"
#include "pool_support.h"
#include "support/bug_recorder.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr AllocFlags kNormal = AllocFlags::kKernel;

// Free memory first: without it a small request takes a page.
std::unique_ptr<Pool> make_ready(bool system_malloc = false) {
  auto pool = make_pool(
      {.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB, .system_malloc = system_malloc});
  REQUIRE(pool->reserve(Bytes(4 * kMiB)).ok());
  return pool;
}

// What each call that takes an address says of a wrong one.
struct Call {
  const char* name;
  void (*act)(Pool&, void*);
};
constexpr Call kCalls[]{
    {"kvfree", [](Pool& pool, void* address) { pool.kvfree(address); }},
    {"kvfree", [](Pool& pool, void* address) { pool.kvfree_sized(address, 64); }},
    {"kvsize", [](Pool& pool, void* address) { CHECK(pool.kvsize(address) == 0); }},
    {"kvrealloc", [](Pool& pool, void* address) { CHECK(pool.kvrealloc(address, 9) == nullptr); }},
};

void expect(Pool& pool, void* address, Bug bug, const void* start, const char* owner) {
  for (const Call& call : kCalls) {
    CAPTURE(call.name);
    BugRecorder bugs;
    const Bytes live = pool.stats().small;
    call.act(pool, address);
    REQUIRE(bugs.count() == 1);
    const BugReport report = bugs.take();
    CHECK(to_string(report.bug) == doctest::String(to_string(bug)));
    CHECK(report.call == doctest::String(call.name));
    CHECK(report.address == reinterpret_cast<std::uintptr_t>(address));
    CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(start));
    CHECK(report.owner == doctest::String(owner));
    CHECK(pool.stats().small == live);
  }
}

Bytes held_by(const Pool& pool, const char* owner) {
  std::array<OwnerBytes, 256> owners;
  const std::size_t count = pool.holders(owners);
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strcmp(owners[i].owner, owner) == 0) return owners[i].held;
  }
  return Bytes(0);
}

}  // namespace

TEST_CASE("wrong frees of small objects are told apart by each call, and change nothing") {
  const auto pool = make_ready();
  auto* live = static_cast<std::byte*>(pool->kvmalloc(64, kNormal, "live"));
  REQUIRE(pool->kvsize(live) == 64);
  auto* gone = static_cast<std::byte*>(pool->kvmalloc(64, kNormal, "gone"));
  pool->kvfree(gone);
  expect(*pool, live + 16, Bug::kInteriorPointer, live, "live");
  expect(*pool, live + 1, Bug::kInteriorPointer, live, "live");
  expect(*pool, gone, Bug::kDoubleFree, gone, "gone");
  expect(*pool, gone + 16, Bug::kUnknownAddress, nullptr, "");
  pool->kvfree(live);
  pool->audit();
}

TEST_CASE("a second free of a small object is told as that when its slab is gone") {
  for (const bool trims : {false, true}) {
    CAPTURE(trims);
    const auto pool = make_ready();
    // The first ones of a slab, and one inside.
    std::vector<void*> objects;
    for (int i = 0; i < 100; ++i) {
      objects.push_back(pool->kvmalloc(64, kNormal, "gone"));
    }
    for (void* object : objects) {
      REQUIRE(pool->kvsize(object) == 64);
    }
    std::vector<void*> freed = objects;
    free_all(*pool, objects);
    if (trims) {
      REQUIRE(pool->trim() != Bytes(0));
    } else {
      const Messages messages;
      REQUIRE(pool->kvmalloc(32 * kMiB) == nullptr);
      REQUIRE(pool->reserve(Bytes(16 * kMiB)).ok());  // Its slabs as well.
    }
    for (void* object : freed) {
      expect(*pool, object, Bug::kDoubleFree, object, "gone");
    }
    // A buffer has the place now, and then had it.
    if (!trims) {
      void* first = *std::min_element(freed.begin(), freed.end());
      std::vector<void*> pages = fill(*pool, kPage, "page");
      REQUIRE(std::find(pages.begin(), pages.end(), first) != pages.end());
      free_all(*pool, pages);
      REQUIRE(pool->reserve(Bytes(16 * kMiB)).ok());  // Taken apart, each.
      expect(*pool, first, Bug::kDoubleFree, first, "page");
    }
    pool->audit();
  }
}

TEST_CASE("a small object freed with another class's size is told, and stays") {
  const auto pool = make_ready();
  BugRecorder bugs;
  void* object = pool->kvmalloc(64);
  for (const std::size_t wrong : {std::size_t{0}, std::size_t{16}, std::size_t{65}, kPage}) {
    pool->kvfree_sized(object, wrong);
    CHECK(bugs.take().bug == Bug::kWrongSize);
    CHECK(pool->kvsize(object) == 64);
  }
  pool->kvfree_sized(object, 60);
  CHECK(bugs.count() == 0);
  CHECK(pool->stats().small == Bytes(0));
}

TEST_CASE("a small object stays where it is within its class, and moves with what it holds else") {
  const auto pool = make_ready();
  auto* object = static_cast<char*>(pool->kvmalloc(80));
  REQUIRE(pool->kvsize(object) == 80);
  std::memset(object, 'k', 80);
  CHECK(pool->kvrealloc(object, 70) == object);
  CHECK(pool->kvrealloc(object, 80) == object);
  auto* moved = static_cast<char*>(pool->kvrealloc(object, 3000));
  REQUIRE(moved != nullptr);
  CHECK(moved != object);
  CHECK(all_bytes_are(moved, 80, 'k'));
  CHECK(pool->stats().small == Bytes(pool->kvsize(moved)));  // The first is gone.
  pool->kvfree(moved);
  // Within the smallest class, too, who asks for less than half gets another.
  object = static_cast<char*>(pool->kvmalloc(16));
  std::memset(object, 's', 16);
  moved = static_cast<char*>(pool->kvrealloc(object, 4));
  REQUIRE(moved != nullptr);
  CHECK(moved != object);
  CHECK(all_bytes_are(moved, 4, 's'));
  pool->kvfree(moved);
}

TEST_CASE("a small object that cannot grow is left as it is") {
  const auto pool = make_ready();
  auto* object = static_cast<char*>(pool->kvmalloc(64));
  REQUIRE(pool->kvsize(object) == 64);
  std::memset(object, 'x', 64);
  CHECK(pool->kvrealloc(object, 32 * kMiB, AllocFlags::kNoWarn) == nullptr);
  CHECK(all_bytes_are(object, 64, 'x'));
  CHECK(pool->kvsize(object) == 64);
  pool->kvfree(object);
}

TEST_CASE("a small object is contiguous, and what is no buffer is not") {
  const auto pool = make_ready();
  void* object = pool->kvmalloc(64);
  CHECK(pool->is_contiguous(object));
  int local = 0;
  CHECK_FALSE(pool->is_contiguous(&local));
  CHECK_FALSE(pool->is_contiguous(nullptr));
  pool->kvfree(object);
  CHECK_FALSE(pool->is_contiguous(object));
}

TEST_CASE("in a NoAllocScope a small object is refused and told, although there is one ready") {
  const auto pool = make_ready();
  pool->kvfree(pool->kvmalloc(64));
  BugRecorder bugs;
  {
    const NoAllocScope scope;
    CHECK(pool->kvmalloc(64) == nullptr);
  }
  REQUIRE(bugs.count() == 1);
  CHECK(bugs.take().bug == Bug::kAllocationInNoAllocScope);
  void* object = pool->kvmalloc(64);
  CHECK(object != nullptr);
  pool->kvfree(object);
}

TEST_CASE("what slabs hold is named by who has the objects, with the pages the same owner has") {
  const auto pool = make_ready();
  std::vector<void*> held;
  for (int i = 0; i < 64; ++i) {
    held.push_back(pool->kvmalloc(1024, kNormal, "both"));
    held.push_back(pool->kvmalloc(512, kNormal, "small only"));
  }
  held.push_back(pool->kvmalloc(5 * kPage, kNormal, "both"));
  CHECK(held_by(*pool, "both") == Bytes(64 * 1024 + 5 * kPage));
  CHECK(held_by(*pool, "small only") == Bytes(64 * 512));
  CHECK(held_by(*pool, "(small objects)") < Bytes(64 * 1024));  // what of the slabs is unused
  free_all(*pool, held);
  CHECK(held_by(*pool, "small only") == Bytes(0));
}

TEST_CASE("slabs are told apart from the others, so that what is in them is not counted twice") {
  // More owners of pages than are told apart, before there is a slab.
  static std::array<std::array<char, 8>, 80> names{};
  const auto pool = make_ready();
  std::vector<void*> held;
  for (std::size_t i = 0; i < names.size(); ++i) {
    (void)std::snprintf(names[i].data(), names[i].size(), "n%zu", i);
    held.push_back(pool->kvmalloc(2 * kPage, kNormal, names[i].data()));
  }
  held.push_back(pool->kvmalloc(64, kNormal, "small"));
  CHECK(held_by(*pool, "(small objects)") > Bytes(0));
  CHECK(held_by(*pool, "small") == Bytes(64));
  // Whole pages together.
  CHECK((held_by(*pool, "(small objects)") + Bytes(64)).value() % kPage == 0);
  free_all(*pool, held);
}

TEST_CASE(
    "objects of the system's malloc are in no slab, and its owners are not among the pool's") {
  const auto pool = make_ready(true);
  BugRecorder bugs;
  void* object = pool->kvmalloc(100, kNormal, "system");
  REQUIRE(object != nullptr);
  CHECK(pool->kvsize(object) == 100);
  CHECK(held_by(*pool, "system") == Bytes(0));
  CHECK(held_by(*pool, "(small objects)") == Bytes(0));
  CHECK(pool->kvrealloc(object, 90) == object);
  pool->kvfree_sized(object, 90);
  pool->kvfree(object);
  REQUIRE(bugs.count() == 1);
  CHECK(bugs.take().bug == Bug::kDoubleFree);
}
