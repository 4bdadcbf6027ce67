// Small mappings: slots of blocks.
#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "keel/base/check.h"
#include "support/bug_recorder.h"
#include "support/fault_os.h"
#include "support/test_seed.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::BugRecorder;
using keel_test::FaultOs;
using keel_test::number_at;
using keel_test::run_of;
using Fixture = keel_test::WindowFixture;

namespace {

// The dump as an array.
struct Dump : VmapVisitor {
  explicit Dump(const Window& window) { window.visit_ranges(*this); }
  void visit(const VmapRange& range) override { ranges.push_back(range); }
  std::vector<VmapRange> ranges;
};

}  // namespace

TEST_CASE("small mappings stand side by side, no size rounded up, no guard page between") {
  Fixture f;
  std::byte* expected = f.map(run_of(0, 3));
  expected += 3 * kPageBytes;
  for (const std::uint64_t pages : {5U, 1U, 7U, 2U, 33U}) {
    std::byte* at = f.map(run_of(pages, pages));
    CHECK(at == expected);
    CHECK(number_at(at) == pages);
    expected += pages * kPageBytes;
  }
  f.window->audit();
}

TEST_CASE("a slot is used again after a purge while its neighbours live") {
  Fixture f;
  f.map(run_of(0, 2));
  std::byte* middle = f.map(run_of(10, 3));
  std::byte* right = f.map(run_of(20, 4));
  f.window->unmap(middle);
  CHECK(f.map(run_of(1, 3)) != middle);  // lazy, so not yet
  REQUIRE(f.window->purge().ok());
  CHECK(f.map(run_of(30, 1)) == middle);
  CHECK(f.map(run_of(40, 2)) == middle + kPageBytes);
  CHECK(number_at(middle) == 30);
  CHECK(number_at(right) == 20);
  f.window->audit();
}

TEST_CASE("mappings up to 64 pages without guard are slots, all others are not") {
  Fixture f({.bytes = 4U << 20});
  f.map(run_of(0, 64));
  f.map(run_of(0, 65));
  f.map(run_of(0, 1), {.guard = true});
  std::vector<std::uint64_t> in_block;
  for (const VmapRange& range : Dump(*f.window).ranges) {
    if (range.in_block) {
      in_block.push_back(range.area.pages.value());
    }
  }
  CHECK(in_block == std::vector<std::uint64_t>{64});
}

TEST_CASE("a block whose slots are all lazy or free is retired for larger areas") {
  Fixture f;
  std::vector<std::byte*> slots;
  for (int i = 0; i < 100; ++i) {
    slots.push_back(f.map({Pfn(2)}));
  }
  for (std::byte* slot : slots) {
    f.window->unmap(slot);
  }
  CHECK(number_at(f.map(run_of(0, 256))) == 0);  // every page of the window
  f.window->audit();
}

TEST_CASE("a large area finds its place between slots that live") {
  Fixture f;
  std::vector<std::byte*> slots;
  for (int i = 0; i < 256; ++i) {
    slots.push_back(f.map({Pfn(2)}));
  }
  for (std::size_t i = 0; i < 256; ++i) {
    if (i % 100 != 99) {  // two live slots, and 99 pages free before each and over block ends
      f.window->unmap(slots[i]);
    }
  }
  CHECK(f.window->map(run_of(0, 100)).error().code == Errc::kNoAddressSpace);
  std::byte* at = f.map(run_of(0, 99));
  CHECK((at == slots[0] || at == slots[100]));
  CHECK(number_at(slots[99]) == 2);
  f.window->audit();
  f.window->unmap(slots[99]);
  f.window->unmap(slots[199]);
  f.window->unmap(at);
  f.map(run_of(0, 256));
}

TEST_CASE("single pages fill a window of 120 MiB to its last page within the default budget") {
  constexpr std::uint64_t kPages = 30'720;
  FaultOs os;
  ScopedOs scope(os);
  Fixture f({.bytes = kPages * kPageBytes, .max_mappings = 65'530 / 2});
  const std::vector<Pfn> page = {Pfn(5)};
  for (std::uint64_t i = 0; i < kPages; ++i) {
    const auto mapped = f.window->map(page);
    REQUIRE(mapped.ok());
    REQUIRE(number_at(static_cast<std::byte*>(*mapped)) == 5);
  }
  CHECK(f.window->map(page).error().code == Errc::kNoAddressSpace);
  CHECK(f.window->stats().free == Pages(0));
  CHECK(f.window->stats().mappings == kPages);
  f.window->audit();
  for (const VmapRange& range : Dump(*f.window).ranges) {
    REQUIRE(f.window->unmap(range.area.start));
  }
  REQUIRE(f.window->purge().ok());
  CHECK(f.window->stats().free == Pages(kPages));
  f.window->audit();
}

TEST_CASE("a window is filled to its last page and emptied a thousand times") {
  for (const unsigned shards : {1U, 4U}) {
    FaultOs os;
    ScopedOs scope(os);
    Fixture f({.bytes = 1U << 20, .shards = shards});
    os.simulate_mappings();
    const std::uint64_t rounds = keel_test::test_rounds(1'000, 100);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::uint64_t size = 1 + round % 7;  // in the last round of seven: 36 of 7 and 4 of 1
      std::vector<std::byte*> areas;
      for (std::uint64_t left = 256; left != 0;) {
        const std::uint64_t pages = size <= left ? size : 1;
        const auto mapped = f.window->map(run_of(0, pages));
        if (!mapped) {
          break;  // what is left is in pieces
        }
        areas.push_back(static_cast<std::byte*>(*mapped));
        left -= pages;
      }
      while (const auto mapped = f.window->map(run_of(0, 1))) {
        areas.push_back(static_cast<std::byte*>(*mapped));
      }
      REQUIRE(f.window->stats().free == Pages(0));
      for (std::byte* area : areas) {
        REQUIRE(f.window->unmap(area));
      }
    }
    f.window->audit();
    REQUIRE(f.window->purge().ok());
    REQUIRE(f.window->stats().free == Pages(256));
    f.window->audit();
  }
}

TEST_CASE("a map() of a slot that fails at any call leaves the window as it was") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  const std::byte* left = f.map({Pfn(9)});
  const keel_test::WindowSnapshot before(*f.window);
  std::uint64_t n = 1;
  for (;; ++n) {
    os.fail_nth(n);
    const auto mapped = f.window->map(keel_test::scattered(3));
    if (!os.fired()) {
      CHECK(*mapped == left + kPageBytes);
      break;
    }
    CHECK(mapped.error().code == Errc::kNoMemory);
    CHECK(keel_test::WindowSnapshot(*f.window) == before);
    CHECK(keel_test::faults_in_child(left + kPageBytes));
    f.window->audit();
  }
  CHECK(n == 5);  // three runs, populated with one call
  CHECK(number_at(left) == 9);
}

TEST_CASE("each wrong unmap of a slot is told apart and changes nothing") {
  Fixture f;
  BugRecorder bugs;
  std::byte* left = f.map({Pfn(0)}, {.owner = "left"});
  std::byte* slot = f.map(run_of(10, 3), {.owner = "buffer"});
  const auto expect = [&](const void* address, Bug bug, const void* start, std::uint64_t pages,
                          const char* owner) {
    CHECK(!f.window->unmap(address));
    REQUIRE(bugs.count() == 1);
    const BugReport report = bugs.take();
    CHECK(report.bug == bug);
    CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(start));
    CHECK(report.area_bytes == pages * kPageBytes);
    CHECK(std::strcmp(report.owner, owner) == 0);
    f.window->audit();
  };
  expect(slot + kPageBytes, Bug::kInteriorPointer, slot, 3, "buffer");
  expect(slot + 1, Bug::kInteriorPointer, slot, 3, "buffer");
  expect(slot + 3 * kPageBytes, Bug::kUnknownAddress, nullptr, 0, "");  // free page of the block
  CHECK(f.window->unmap(slot));
  expect(slot, Bug::kDoubleFree, slot, 3, "buffer");  // lazy
  REQUIRE(f.window->purge().ok());
  expect(slot, Bug::kDoubleFree, slot, 3, "buffer");  // its pages are clear in the block
  expect(slot + kPageBytes, Bug::kUnknownAddress, nullptr, 0, "");
  CHECK(f.window->unmap(left));
  REQUIRE(f.window->purge().ok());
  expect(slot, Bug::kDoubleFree, slot, 3, "buffer");  // and the block is empty
  std::byte* wide = f.map(run_of(0, 256), {.owner = "wide"});
  expect(slot, Bug::kInteriorPointer, wide, 256, "wide");
}
