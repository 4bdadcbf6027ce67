// Purges in slices, refused ones, and many more mappings than a process may have.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "keel/vmap/system_limits.h"
#include "support/fault_os.h"
#include "support/memory_lock.h"
#include "support/test_seed.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::FaultOs;
using keel_test::faults_in_child;
using keel_test::mask_of;
using keel_test::number_at;
using keel_test::OsCall;
using keel_test::run_of;
using keel_test::scattered;
using Fixture = keel_test::WindowFixture;
using Snapshot = keel_test::WindowSnapshot;

namespace {

// Sees how many pages each mapping of nothing covers.
class PurgeSizes : public FaultOs {
 public:
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if (address != nullptr) {
      largest = std::max(largest, bytes / kPageBytes);
    }
    return FaultOs::mmap(address, bytes, protection, flags, fd, offset, out);
  }
  std::size_t largest = 0;
};

// Unmaps an area whenever another is purged.
class UnmapsMeanwhile final : public Os {
 public:
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if (protection == PROT_NONE && !areas.empty() && window != nullptr) {
      std::byte* area = areas.back();
      areas.pop_back();
      window->unmap(area);
    }
    return Os::mmap(address, bytes, protection, flags, fd, offset, out);
  }
  Window* window = nullptr;
  std::vector<std::byte*> areas;
};

// Without what a sanitizer would add: its shadow memory takes page faults of its own.
__attribute__((no_sanitize("address", "thread"))) void touch(volatile std::byte* at,
                                                             std::size_t pages) {
  for (std::size_t i = 0; i < pages; ++i) {
    at[i * kPageBytes] = std::byte{1};
  }
}

}  // namespace

TEST_CASE("purging in slices ends with as much as was lazy when it began") {
  UnmapsMeanwhile os;
  ScopedOs scope(os);
  Fixture f({.bytes = 64U << 20});
  for (int i = 0; i < 20; ++i) {
    os.areas.push_back(f.map(scattered(64)));
  }
  for (int i = 0; i < 4; ++i) {
    f.window->unmap(os.areas.back());
    os.areas.pop_back();
  }
  os.window = f.window.get();
  f.window->purge_in_slices();
  CHECK(f.window->stats().purge_slices == 4);
  CHECK(f.window->lazy_pages() == Pages(4 * 64));
  os.window = nullptr;
  for (std::byte* area : os.areas) {
    f.window->unmap(area);
  }
  f.window->purge_in_slices();
  CHECK(f.window->lazy_pages() == Pages(0));
  f.window->audit();
}

TEST_CASE("purging in slices ends when the system refuses") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f({.bytes = 16U << 20});
  f.window->unmap(f.map(scattered(64)));
  os.fail_from(1, mask_of(OsCall::kMmap));
  f.window->purge_in_slices();
  CHECK(f.window->lazy_pages() == Pages(64));
}

TEST_CASE("a slice is one call, and slices one after the other remove all") {
  PurgeSizes os;
  ScopedOs scope(os);
  Fixture f({.bytes = 16U << 20, .shards = 1});
  std::vector<std::byte*> areas;
  for (int i = 0; i < 20; ++i) {
    areas.push_back(f.map(scattered(16)));
  }
  for (std::byte* area : areas) {
    f.window->unmap(area);
  }
  CHECK(f.window->lazy_pages() == Pages(320));
  Pages lazy = f.window->lazy_pages();
  for (bool more = true; more;) {
    const std::uint64_t before = os.calls(OsCall::kMmap);
    more = f.window->purge_slice();
    CHECK(os.calls(OsCall::kMmap) - before == 1);
    CHECK(lazy - f.window->lazy_pages() <= Pages(64));  // every page is a mapping here
    CHECK(f.window->lazy_pages() < lazy);
    lazy = f.window->lazy_pages();
    f.window->audit();
  }
  CHECK(lazy == Pages(0));
  CHECK(f.window->stats().purge_slices == 5);
  CHECK(!f.window->purge_slice());
  CHECK(os.largest <= 512);
}

TEST_CASE("an area past the bounds of a slice goes in pieces, by pages and by mappings") {
  for (const bool in_pieces : {false, true}) {
    PurgeSizes os;
    ScopedOs scope(os);
    Fixture f({.bytes = 16U << 20});
    os.largest = 0;
    std::vector<Pfn> frames = scattered(128);
    if (!in_pieces) {
      frames.clear();
      for (int i = 0; i < 8; ++i) {
        const auto run = run_of(0, 256);
        frames.insert(frames.end(), run.begin(), run.end());
      }
    }
    std::byte* at = f.map(frames);
    f.window->unmap(at);
    CHECK(f.window->purge_slice());
    CHECK(f.window->lazy_pages() == Pages(frames.size()));  // until all of it is gone
    CHECK(faults_in_child(at));
    CHECK(number_at(at + (frames.size() - 1) * kPageBytes) == frames.back().value());
    f.window->audit();
    int slices = 1;
    for (bool more = true; more; ++slices) {
      more = f.window->purge_slice();
      f.window->audit();
    }
    CHECK(slices == (in_pieces ? 2 : 4));
    CHECK(os.largest == (in_pieces ? 64U : 512U));
    CHECK(f.window->stats().free == Pages(4096));
  }
}

TEST_CASE("a whole purge ends what a slice began") {
  Fixture f({.bytes = 16U << 20});
  std::byte* at = f.map(scattered(128));
  f.window->unmap(at);
  CHECK(f.window->purge_slice());
  REQUIRE(f.window->purge().ok());
  CHECK(f.window->lazy_pages() == Pages(0));
  CHECK(faults_in_child(at + 127 * kPageBytes));
  CHECK(f.window->stats().free == Pages(4096));
  f.window->audit();
}

TEST_CASE("a slice that the kernel refuses keeps its areas lazy, also one begun before") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f({.bytes = 16U << 20});
  std::byte* small = f.map(scattered(8));
  f.window->unmap(small);
  const Snapshot before(*f.window);
  os.fail_nth(1, mask_of(OsCall::kMmap));
  CHECK(!f.window->purge_slice());
  CHECK(Snapshot(*f.window) == before);
  CHECK(number_at(small) == 0);
  f.window->audit();
  os.disarm();
  CHECK(!f.window->purge_slice());
  CHECK(f.window->lazy_pages() == Pages(0));

  f.window->unmap(f.map(scattered(128)));
  CHECK(f.window->purge_slice());
  os.fail_nth(1, mask_of(OsCall::kMmap));
  CHECK(!f.window->purge_slice());
  CHECK(f.window->lazy_pages() == Pages(128));
  f.window->audit();
  os.disarm();
  while (f.window->purge_slice()) {
  }
  CHECK(f.window->stats().free == Pages(4096));
  f.window->audit();
}

TEST_CASE("unmap() succeeds while every overmap is refused, and what it left is purged later") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  std::vector<std::byte*> areas;
  for (int i = 0; i < 10; ++i) {
    areas.push_back(f.map(scattered(5), {.guard = i % 2 == 0}));
  }
  os.fail_from(1, mask_of(OsCall::kMmap));
  for (std::byte* area : areas) {
    CHECK(f.window->unmap(area));
    CHECK(!f.window->purge().ok());
    f.window->audit();
  }
  CHECK(f.window->stats().live == Pages(0));
  CHECK(f.window->lazy_pages() == Pages(55));
  os.disarm();
  REQUIRE(f.window->purge().ok());
  CHECK(f.window->stats().free == Pages(256));
  f.window->audit();
}

TEST_CASE("no call of a purge or an unmap allocates") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  std::byte* slot = f.map(scattered(5));
  std::byte* area = f.map(scattered(70), {.guard = true});
  const std::uint64_t before = os.calls(OsCall::kMetadata);
  os.fail_from(1, mask_of(OsCall::kMetadata));
  CHECK(f.window->unmap(slot));
  CHECK(f.window->unmap(area));
  (void)f.window->purge_slice();
  CHECK(f.window->purge().ok());
  CHECK(os.calls(OsCall::kMetadata) == before);
  CHECK(!os.fired());
}

TEST_CASE("ten times the mappings that a process may have are made and dropped, nobody purging") {
  // Where a process may have many more, no window that is tested here comes near them.
  const std::uint64_t most = std::min<std::uint64_t>(max_map_count(), 65'530);
  const std::uint64_t wanted = keel_test::test_rounds(10 * most, 2 * most);
  Fixture f({.bytes = 64U << 20});
  const std::vector<Pfn> frames = scattered(64);
  for (std::uint64_t made = 0; made < wanted; made += frames.size()) {
    auto mapped = f.window->map(frames);
    REQUIRE(mapped.ok());
    REQUIRE(f.window->unmap(*mapped));
  }
  CHECK(f.window->stats().purges > 0);
  f.window->audit();
}

TEST_CASE("a mapping of any kind is there before it is touched") {
  if (keel_test::cannot_lock(4 * keel_test::kFrames * kPageBytes)) {
    return;
  }
  for (const bool locked : {false, true}) {
    for (const bool dumped : {false, true}) {
      Fixture f({.bytes = 1U << 20}, {.lock_memory = locked, .dump_memory = dumped});
      std::byte* at = f.map(scattered(100));
      struct rusage before {};
      struct rusage after {};
      REQUIRE(::getrusage(RUSAGE_THREAD, &before) == 0);
      touch(at, 100);
      REQUIRE(::getrusage(RUSAGE_THREAD, &after) == 0);
      CHECK(after.ru_minflt - before.ru_minflt <= 2);  // the test's own stack
    }
  }
}

TEST_CASE("aliases are never dumped and never forked, however the store is made") {
  if (keel_test::cannot_lock(4 * keel_test::kFrames * kPageBytes)) {
    return;
  }
  for (const bool locked : {false, true}) {
    for (const bool dumped : {false, true}) {
      FaultOs os;
      ScopedOs scope(os);
      Fixture f({.bytes = 1U << 20}, {.lock_memory = locked, .dump_memory = dumped});
      const std::byte* at = f.map({Pfn(2), Pfn(4)});
      std::FILE* smaps = std::fopen("/proc/self/smaps", "r");
      REQUIRE(smaps != nullptr);
      char line[512];
      bool inside = false;
      int seen = 0;
      while (std::fgets(line, sizeof line, smaps) != nullptr) {
        std::uintptr_t from = 0;
        std::uintptr_t to = 0;
        if (std::sscanf(line, "%lx-%lx ", &from, &to) == 2) {
          inside = from >= reinterpret_cast<std::uintptr_t>(at) &&
                   from < reinterpret_cast<std::uintptr_t>(at + 2 * kPageBytes);
        } else if (inside && std::strncmp(line, "VmFlags:", 8) == 0) {
          CHECK(std::strstr(line, " dd") != nullptr);
          CHECK(std::strstr(line, " dc") != nullptr);
          CHECK(std::strstr(line, " lo") == nullptr);
          ++seen;
        }
      }
      std::fclose(smaps);
      CHECK(seen == 2);
    }
  }
}
