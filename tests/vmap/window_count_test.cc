// The window's count of mappings beside the kernel's own, at every moment.
#include <doctest/doctest.h>

#include <cstdio>
#include <vector>

#include "support/fault_os.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::FaultOs;
using keel_test::mask_of;
using keel_test::OsCall;
using keel_test::run_of;

namespace {

std::uint64_t kernel_count(const Window& window, std::size_t bytes) {
  const auto base = reinterpret_cast<std::uintptr_t>(window.base());
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  REQUIRE(maps != nullptr);
  char line[512];
  std::uint64_t count = 0;
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    if (std::sscanf(line, "%lx-%lx ", &from, &to) == 2 && from < base + bytes && to > base) {
      ++count;
    }
  }
  std::fclose(maps);
  return count;
}

}  // namespace

TEST_CASE("an area that goes in pieces is counted with the piece that is gone") {
  constexpr std::size_t kBytes = 16U << 20;
  auto store = FrameStore::create({.capacity_bytes = 8U << 20, .chunk_bytes = 8U << 20});
  REQUIRE(store.ok());
  REQUIRE((*store)->grow().ok());
  for (const bool full : {false, true}) {
    CAPTURE(full);
    const std::uint64_t most = full ? 6 : 100;  // An area with a guard page costs two.
    auto made = Window::create(**store, {.bytes = kBytes, .max_mappings = most, .shards = 1});
    REQUIRE(made.ok());
    Window& window = **made;
    std::vector<void*> areas;
    for (int i = 0; i < 3; ++i) {
      const auto mapped = window.map(run_of(0, 1000), {.guard = full});
      REQUIRE(mapped.ok());
      areas.push_back(*mapped);
    }
    const auto check = [&] {
      CHECK(window.stats().mappings >= kernel_count(window, kBytes));
      CHECK(window.stats().mappings <= most);
      window.audit();
    };
    check();
    CHECK(window.unmap(areas[1]));
    CHECK(window.purge_slice() == !full);  // In one piece, where there is none left to count.
    check();
    while (window.purge_slice()) {
      check();
    }
    check();
    CHECK(window.stats().mappings == 4);
    CHECK(window.unmap(areas[0]));
    CHECK(window.unmap(areas[2]));
    REQUIRE(window.purge().ok());
    CHECK(window.stats().mappings == 1);
    window.audit();
  }
}

TEST_CASE("an area whose purge in pieces is refused again and again counts its cut once") {
  FaultOs os;
  const ScopedOs scope(os);
  auto store = FrameStore::create({.capacity_bytes = 8U << 20, .chunk_bytes = 8U << 20});
  REQUIRE(store.ok());
  REQUIRE((*store)->grow().ok());
  auto made = Window::create(**store, {.bytes = 16U << 20, .lazy_max = Pages(1), .shards = 1});
  REQUIRE(made.ok());
  Window& window = **made;
  const auto mapped = window.map(run_of(0, 1000));
  REQUIRE(mapped.ok());
  const std::uint64_t before = window.stats().mappings;
  CHECK(window.unmap(*mapped));
  for (int i = 0; i < 5; ++i) {
    os.fail_nth(2, mask_of(OsCall::kMmap));
    CHECK(window.purge_slice());
    CHECK(!window.purge_slice());
    CHECK(os.fired());
    CHECK(window.stats().mappings == before + 1);
    window.audit();
  }
  os.disarm();
  // What is mapped over it is whole again.
  const auto again = window.map(run_of(500, 1000));
  REQUIRE(again.ok());
  CHECK(*again == *mapped);
  CHECK(window.stats().mappings == before);
  CHECK(window.unmap(*again));
  CHECK(window.purge_slice());
  CHECK(window.stats().mappings == before + 1);
  CHECK(!window.purge_slice());
  CHECK(window.stats().mappings == 1);
  window.audit();
}
