// The window's count of mappings beside the kernel's own, at every moment.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <vector>

#include "support/fault_os.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::FaultOs;
using keel_test::mask_of;
using keel_test::OsCall;
using keel_test::run_of;
using Fixture = keel_test::WindowFixture;

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

// Calls back after each alias that was made; refuses the n-th, and from there on mappings of
// nothing too.
class AfterAlias final : public Os {
 public:
  std::function<void()> made = [] {};
  unsigned refuse_nth = 0;

  int mremap(void* old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
             void* new_address, void** out) override {
    if (refuse_nth != 0 && ++count_ == refuse_nth) {
      refuses_ = true;
      return -EFAULT;
    }
    const int result = Os::mremap(old_address, old_bytes, new_bytes, flags, new_address, out);
    made();
    return result;
  }
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if (refuses_ && (flags & MAP_FIXED) != 0) {
      return -ENOMEM;
    }
    return Os::mmap(address, bytes, protection, flags, fd, offset, out);
  }
  void disarm() {
    refuse_nth = 0;
    refuses_ = false;
  }

 private:
  unsigned count_ = 0;
  bool refuses_ = false;
};

}  // namespace

TEST_CASE("aliases that are put over lazy ones are counted with them while both are there") {
  constexpr std::size_t kBytes = 1U << 20;
  for (const bool fails : {false, true}) {
    CAPTURE(fails);
    AfterAlias os;
    const ScopedOs scope(os);
    Fixture f({.bytes = kBytes, .lazy_max = Pages(1), .shards = 1});
    std::vector<Pfn> before = run_of(100, 4);
    std::vector<Pfn> after;
    for (std::uint64_t i = 0; i < 4; ++i) {
      before.emplace_back(2 * i);
      after.emplace_back(50 + 2 * i);
    }
    const auto end = run_of(120, 4);
    after.insert(after.end(), end.begin(), end.end());
    std::byte* at = f.map(before);
    const std::uint64_t one_of_five = f.window->stats().mappings;
    CHECK(f.window->unmap(at));
    unsigned moments = 0;
    const auto check = [&] {
      ++moments;
      CHECK(f.window->stats().mappings >= kernel_count(*f.window, kBytes));
    };
    os.made = check;
    if (fails) {
      os.refuse_nth = 5;
      CHECK(f.window->map(after).error().sys_errno == EFAULT);
      CHECK(f.window->lazy_pages() == Pages(8));
      os.disarm();
      check();
      f.window->audit();
    } else {
      CHECK(f.map(after) == at);
      CHECK(f.window->stats().mappings == one_of_five);
    }
    CHECK(moments == 5);
    os.made = [] {};
    f.window->audit();
    if (!fails) {
      CHECK(f.window->unmap(at));
    }
    REQUIRE(f.window->purge().ok());
    CHECK(f.window->stats().mappings == 1);
    f.window->audit();
  }
}

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
