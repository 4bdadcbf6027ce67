#include "keel/alloc/pool_dump.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu_pin.h"
#include "keel/alloc/pool.h"
#include "keel/base/os.h"
#include "support/death.h"

using namespace keel;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Areas final : PoolAreaVisitor {
  void visit(const PoolArea& area) override { seen.push_back(area); }
  [[nodiscard]] const PoolArea* at(const void* start) const {
    const auto found = std::find_if(seen.begin(), seen.end(),
                                    [start](const PoolArea& area) { return area.start == start; });
    return found != seen.end() ? &*found : nullptr;
  }
  std::vector<PoolArea> seen;
};

Areas dump(const Pool& pool) {
  Areas areas;
  pool.dump(areas);
  return areas;
}

// A pool whose free frames lie apart, so that every larger buffer is mapped.
struct Scattered {
  Scattered() {
    auto made = Pool::create({.capacity_bytes = 4 * kMiB,
                              .chunk_bytes = kMiB,
                              .window_bytes = 16 * kMiB,
                              .background = false});
    REQUIRE(made.ok());
    pool = std::move(*made);
    std::vector<void*> pages;
    while (void* page = pool->kvmalloc(kPageBytes, AllocFlags::kNoWarn, "filler")) {
      pages.push_back(page);
    }
    for (std::size_t i = 0; i < pages.size(); i += 2) {
      pool->kvfree(pages[i]);
    }
  }
  [[nodiscard]] void* mapped(std::size_t bytes, const char* owner) const {
    void* buffer = pool->kvmalloc(bytes, AllocFlags::kKernel, owner);
    REQUIRE(buffer != nullptr);
    REQUIRE(!pool->is_contiguous(buffer));
    return buffer;
  }
  std::unique_ptr<Pool> pool;
};

}  // namespace

TEST_CASE("a pool without mapped buffers has an empty dump") {
  auto pool = Pool::create({.capacity_bytes = 2 * kMiB, .background = false});
  REQUIRE(pool.ok());
  CHECK(dump(**pool).seen.empty());
  void* contiguous = (*pool)->kvmalloc(64 << 10);
  REQUIRE(contiguous != nullptr);
  CHECK(dump(**pool).seen.empty());
  (*pool)->kvfree(contiguous);
}

TEST_CASE("a mapped buffer is shown with its address, pages, runs, owner and state") {
  const Scattered scattered;
  void* buffer = scattered.mapped(7 * kPageBytes - 5, "journal");
  const Areas areas = dump(*scattered.pool);
  REQUIRE(areas.seen.size() == 1);
  const PoolArea& area = areas.seen.front();
  CHECK(area.start == buffer);
  CHECK(area.pages == Pages(7));
  CHECK(area.size == Bytes(7 * kPageBytes));
  CHECK(area.runs >= 2);
  CHECK(std::string(area.owner) == "journal");
  CHECK(area.state == PoolAreaState::kLive);
}

TEST_CASE("the owner shown is who has the buffer now, not who had it mapped") {
  const keel_test::Pinned here;  // Idle buffers lie on the stack of the CPU that freed them.
  const Scattered scattered;
  void* first = scattered.mapped(8 * kPageBytes, "first");
  scattered.pool->kvfree(first);
  const Areas idle = dump(*scattered.pool);
  REQUIRE(idle.at(first) != nullptr);
  CHECK(idle.at(first)->state == PoolAreaState::kIdle);
  CHECK(std::string(idle.at(first)->owner) == "first");

  void* second = scattered.mapped(8 * kPageBytes, "second");
  REQUIRE(second == first);  // An idle area is used again as it is.
  const Areas live = dump(*scattered.pool);
  REQUIRE(live.at(second) != nullptr);
  CHECK(live.at(second)->state == PoolAreaState::kLive);
  CHECK(std::string(live.at(second)->owner) == "second");
}

TEST_CASE("an area that was given up is lazy until a purge, then gone") {
  const Scattered scattered;
  void* buffer = scattered.mapped(8 * kPageBytes, "lazy");
  void* kept = scattered.mapped(8 * kPageBytes, "kept");
  scattered.pool->kvfree(buffer);
  // A request that cannot be met takes the idle buffers apart.
  CHECK(scattered.pool->kvmalloc(4 * kMiB, AllocFlags::kNoWarn) == nullptr);
  const Areas lazy = dump(*scattered.pool);
  REQUIRE(lazy.at(buffer) != nullptr);
  CHECK(lazy.at(buffer)->state == PoolAreaState::kLazy);
  scattered.pool->purge();
  const Areas purged = dump(*scattered.pool);
  CHECK(purged.at(buffer) == nullptr);
  CHECK(purged.at(kept) != nullptr);
}

TEST_CASE("a line has all of it, and is cut to the room there is") {
  const PoolArea area{.start = reinterpret_cast<const std::byte*>(0x7f0000001000),
                      .size = Bytes(3 * kPageBytes),
                      .pages = Pages(3),
                      .runs = 2,
                      .owner = "me",
                      .state = PoolAreaState::kIdle};
  std::array<char, 200> line{};
  const std::size_t length = to_line(area, line);
  CHECK(std::string(line.data(), length) ==
        "0x00007f0000001000-0x00007f0000004000     12288 me pages=3 runs=2 idle");
  std::array<char, 8> narrow{};
  CHECK(to_line(area, narrow) == 7);
  CHECK(std::string(narrow.data()) == "0x00007");
  CHECK(to_line(area, {}) == 0);
}

TEST_CASE("every state has a name of its own, and an area of nobody's a dash for the owner") {
  const std::pair<PoolAreaState, const char*> names[] = {
      {PoolAreaState::kMapping, "mapping"},
      {PoolAreaState::kLive, "live"},
      {PoolAreaState::kIdle, "idle"},
      {PoolAreaState::kLazy, "lazy"},
      {static_cast<PoolAreaState>(255), "unknown"}};
  for (const auto& [state, name] : names) {
    CHECK(std::string(to_string(state)) == name);
    std::array<char, 200> line{};
    const std::size_t length =
        to_line({.pages = Pages(1), .runs = 1, .owner = "", .state = state}, line);
    CHECK(std::string(line.data(), length).ends_with(std::string(" - pages=1 runs=1 ") + name));
  }
}

TEST_CASE("an area is shown while it is being mapped, and as lazy while a purge is at it") {
  // Calls back inside the system calls that change a window.
  class MomentOs final : public Os {
   public:
    std::function<void(const void*)> act = [](const void*) {};
    int mremap(void* old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
               void* new_address, void** out) override {
      act(new_address);
      return Os::mremap(old_address, old_bytes, new_bytes, flags, new_address, out);
    }
    int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
             std::uint64_t offset, void** out) override {
      if ((flags & MAP_FIXED) != 0) act(address);
      return Os::mmap(address, bytes, protection, flags, fd, offset, out);
    }
  };
  MomentOs os;
  const ScopedOs scope(os);
  auto pool = Pool::create({.capacity_bytes = 16 * kMiB, .background = false});
  REQUIRE(pool.ok());
  std::vector<PoolAreaState> seen;
  os.act = [&](const void*) {
    for (const PoolArea& area : dump(**pool).seen) {
      seen.push_back(area.state);
      CHECK(std::string(area.owner) == "big");
    }
  };
  (*pool)->kvfree((*pool)->kvmalloc(5 * kMiB, AllocFlags::kKernel, "big"));
  CHECK(std::find(seen.begin(), seen.end(), PoolAreaState::kMapping) != seen.end());
  seen.clear();
  (void)(*pool)->trim();
  CHECK(std::find(seen.begin(), seen.end(), PoolAreaState::kLazy) != seen.end());
  os.act = [](const void*) {};
}

TEST_CASE("a forked child sees no area of its parent's pool") {
  const Scattered scattered;
  void* buffer = scattered.mapped(8 * kPageBytes, "parent");
  const auto ending =
      keel_test::run_in_child([&] { ::_exit(dump(*scattered.pool).seen.empty() ? 0 : 1); });
  CHECK(ending.exit_code == 0);
  CHECK(dump(*scattered.pool).at(buffer) != nullptr);
}

TEST_CASE("a dump beside threads that allocate and free shows whole areas only") {
  const Scattered scattered;
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
      void* buffer = scattered.pool->kvmalloc((2 + i % 30) * kPageBytes, AllocFlags::kNoWarn, "c");
      scattered.pool->kvfree(buffer);
    }
  });
  for (int i = 0; i < 300; ++i) {
    for (const PoolArea& area : dump(*scattered.pool).seen) {
      CHECK(area.size.value() == bytes_of(area.pages));
      CHECK(area.pages >= Pages(1));
      CHECK(std::strcmp(area.owner, "c") == 0);
    }
  }
  stop.store(true, std::memory_order_relaxed);
  churn.join();
}

TEST_CASE("quantiles of slow allocations are the upper ends of their buckets") {
  PoolStats stats;
  CHECK(slow_allocation_quantile_ns(stats, 0.5) == 0);
  stats.slow_allocation_ns[10] = 90;  // Below 1,024 ns.
  stats.slow_allocation_ns[20] = 10;
  CHECK(slow_allocation_quantile_ns(stats, 0.5) == std::uint64_t{1} << 10);
  CHECK(slow_allocation_quantile_ns(stats, 0.89) == std::uint64_t{1} << 10);
  CHECK(slow_allocation_quantile_ns(stats, 0.95) == std::uint64_t{1} << 20);
  CHECK(slow_allocation_quantile_ns(stats, 1) == std::uint64_t{1} << 20);
}
