// Shards: areas over several of them, and room in whichever has it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "support/bug_recorder.h"
#include "support/fault_os.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::BugRecorder;
using keel_test::FaultOs;
using keel_test::faults_in_child;
using keel_test::number_at;
using keel_test::OsCall;
using keel_test::run_of;
using Fixture = keel_test::WindowFixture;
using Snapshot = keel_test::WindowSnapshot;

namespace {

constexpr WindowConfig kFourShards = {.bytes = 1U << 20, .shards = 4};  // of 64 pages each

}  // namespace

TEST_CASE("an area larger than a shard has its place while the space is free") {
  Fixture f(kFourShards);
  const std::uint64_t empty = f.window->stats().mappings;
  for (const std::uint64_t pages : {65U, 128U, 200U, 255U, 256U}) {
    std::byte* at = f.map(run_of(0, pages), {.owner = "large"});
    CHECK(number_at(at + (pages - 1) * kPageBytes) == pages - 1);
    CHECK(f.window->find(at)->pages == Pages(pages));
    f.window->audit();
    CHECK(f.window->unmap(at));
    REQUIRE(f.window->purge().ok());
    CHECK(f.window->stats().free == Pages(256));
    CHECK(f.window->stats().mappings == empty);
    f.window->audit();
  }
}

TEST_CASE("the guard page of an area may stand alone in the next shard") {
  Fixture f(kFourShards);
  for (const std::uint64_t pages : {64U, 128U, 192U, 255U}) {
    std::byte* at = f.map(run_of(0, pages), {.guard = true});
    CHECK(faults_in_child(at + pages * kPageBytes));
    f.window->audit();
    CHECK(f.window->unmap(at));
    REQUIRE(f.window->purge().ok());
    f.window->audit();
  }
  CHECK(f.window->map(run_of(0, 256), {.guard = true}).error().code == Errc::kNoAddressSpace);
}

TEST_CASE("a wrong unmap in any shard names the area that reaches into it") {
  Fixture f(kFourShards);
  BugRecorder bugs;
  std::byte* at = f.map(run_of(0, 200), {.owner = "large"});
  for (const std::uint64_t page : {1U, 63U, 64U, 130U, 199U}) {
    CHECK(!f.window->unmap(at + page * kPageBytes));
    const BugReport report = bugs.take();
    CHECK(report.bug == Bug::kInteriorPointer);
    CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(at));
    CHECK(std::strcmp(report.owner, "large") == 0);
  }
  CHECK(f.window->unmap(at));
  CHECK(!f.window->unmap(at));
  CHECK(bugs.take().bug == Bug::kDoubleFree);
  REQUIRE(f.window->purge().ok());
  CHECK(!f.window->unmap(at));
  CHECK(bugs.take().bug == Bug::kDoubleFree);
  CHECK(!f.window->unmap(at + 64 * kPageBytes));
  CHECK(bugs.take().bug == Bug::kUnknownAddress);
}

TEST_CASE("one thread fills every shard, with guards and without") {
  for (const bool guard : {false, true}) {
    Fixture f(kFourShards);
    const std::uint64_t each = guard ? 2 : 1;
    for (std::uint64_t i = 0; i < 256 / each; ++i) {
      f.map({Pfn(i)}, {.guard = guard});
    }
    CHECK(f.window->stats().free == Pages(0));
    CHECK(f.window->map(run_of(0, 1)).error().code == Errc::kNoAddressSpace);
    f.window->audit();
  }
}

TEST_CASE("a map() without room at home goes to the next shard before it purges") {
  for (const bool guard : {false, true}) {
    Fixture f(kFourShards);
    f.window->unmap(f.map({Pfn(1)}, {.guard = guard}));
    for (std::uint64_t i = 0; i < 60; ++i) {
      f.map(run_of(0, 3), {.guard = guard});
    }
    CHECK(f.window->stats().purge_calls == 0);
    CHECK(f.window->lazy_pages() == Pages(guard ? 2 : 1));
    f.window->audit();
  }
}

TEST_CASE("areas stand beside one that reaches over shards, and are purged apart from it") {
  Fixture f(kFourShards);
  std::byte* large = f.map(run_of(0, 150));  // First: it needs more than any shard has.
  std::byte* left = f.map(run_of(3, 30), {.guard = true});
  std::byte* right = f.map(run_of(7, 20), {.guard = true});
  f.window->unmap(large);
  f.window->unmap(left);
  while (f.window->purge_slice()) {
    f.window->audit();
  }
  CHECK(f.window->lazy_pages() == Pages(0));
  CHECK(number_at(right) == 7);
  f.window->unmap(right);
  REQUIRE(f.window->purge().ok());
  CHECK(number_at(f.map(run_of(0, 256))) == 0);
  f.window->audit();
}

TEST_CASE("a lazy area beside one that reaches over shards is purged without it") {
  Fixture f(kFourShards);
  std::vector<std::byte*> areas;  // of 32 pages with their guards, two in each shard
  for (int i = 0; i < 8; ++i) {
    areas.push_back(f.map(run_of(0, 31), {.guard = true}));
  }
  std::sort(areas.begin(), areas.end());
  for (std::size_t i = 1; i < 6; ++i) {
    f.window->unmap(areas[i]);
  }
  REQUIRE(f.window->purge().ok());
  std::byte* large = f.map(run_of(0, 150));
  REQUIRE(large == areas[1]);
  f.window->unmap(areas[0]);
  f.window->unmap(large);
  REQUIRE(f.window->purge().ok());
  CHECK(f.window->lazy_pages() == Pages(0));
  CHECK(f.window->stats().free == Pages(192));
  f.window->audit();
  CHECK(f.map(run_of(0, 192)) == areas[0]);
  f.window->audit();
}

TEST_CASE("a map() over shards that fails at any call leaves the window as it was") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f(kFourShards);
  const std::byte* neighbour = f.map({Pfn(9)});
  const Snapshot before(*f.window);
  std::uint64_t n = 1;
  for (;; ++n) {
    os.fail_nth(n);
    const auto mapped = f.window->map(keel_test::scattered(100), {.guard = true});
    if (!os.fired()) {
      CHECK(mapped.ok());
      break;
    }
    CHECK(mapped.error().code == Errc::kNoMemory);
    CHECK(Snapshot(*f.window) == before);
    f.window->audit();
  }
  CHECK(n == 102);
  CHECK(number_at(neighbour) == 9);
}
