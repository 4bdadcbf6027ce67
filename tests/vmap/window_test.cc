#include "keel/vmap/window.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cinttypes>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"
#include "support/seeded.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::BugRecorder;
using keel_test::FaultOs;
using keel_test::faults_in_child;
using keel_test::kFrames;
using keel_test::number_at;
using keel_test::OsCall;
using keel_test::run_of;
using Fixture = keel_test::WindowFixture;
using Snapshot = keel_test::WindowSnapshot;

TEST_CASE("any list of frames becomes contiguous, neighbours as one mapping") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  const std::uint64_t before = os.calls(OsCall::kMremap);
  const std::byte* at = f.map({Pfn(7), Pfn(8), Pfn(9), Pfn(3), Pfn(200), Pfn(201)});
  CHECK(os.calls(OsCall::kMremap) - before == 3);
  const std::uint64_t expected[] = {7, 8, 9, 3, 200, 201};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(number_at(at + i * kPageBytes) == expected[i]);
  }
  // The same memory, not a copy.
  *f.store->address_of(Pfn(3)) = std::byte{99};
  CHECK(at[3 * kPageBytes] == std::byte{99});
  CHECK(f.window->stats().mappings == 3 + 1);  // the gap behind
  f.window->audit();
}

TEST_CASE("a frame may be mapped twice, also in one list") {
  Fixture f;
  const std::byte* at = f.map({Pfn(5), Pfn(5), Pfn(4)});
  CHECK(number_at(at) == 5);
  CHECK(number_at(at + kPageBytes) == 5);
  CHECK(number_at(at + 2 * kPageBytes) == 4);
}

TEST_CASE("unmap makes no system call and the alias lives until a purge") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  std::byte* at = f.map(run_of(10, 4), {.owner = "test", .cookie = 0x1234567890ABCDEF});
  const std::uint64_t before = os.all_calls();
  VmapArea area;
  CHECK(f.window->unmap(at, &area));
  CHECK(os.all_calls() == before);
  CHECK(area.start == at);
  CHECK(area.pages == Pages(4));
  CHECK(area.cookie == 0x1234567890ABCDEF);
  CHECK(number_at(at) == 10);
  CHECK(f.window->stats().lazy == Pages(4));
  CHECK(f.window->purge().ok());
  CHECK(f.window->stats().lazy == Pages(0));
  CHECK(f.window->stats().mappings == 1);
  CHECK(faults_in_child(at));
  f.window->audit();
}

TEST_CASE("a purge removes neighbours, also over small gaps, with one call") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  std::vector<std::byte*> areas;
  for (std::uint64_t i = 0; i < 9; ++i) {
    areas.push_back(f.map(run_of(2 * i, 1)));
  }
  REQUIRE(areas[8] == areas[0] + 8 * kPageBytes);
  f.window->unmap(areas[4]);
  REQUIRE(f.window->purge().ok());  // leaves a gap
  for (const std::size_t i : {7U, 1U, 3U, 6U, 2U, 5U}) {
    f.window->unmap(areas[i]);
  }
  const std::uint64_t before = os.calls(OsCall::kMmap);
  REQUIRE(f.window->purge().ok());
  CHECK(os.calls(OsCall::kMmap) - before == 1);
  CHECK(f.window->stats().purged_pages == 7);
  CHECK(number_at(areas[0]) == 0);
  CHECK(number_at(areas[8]) == 16);
  f.window->audit();
  f.window->unmap(areas[0]);
  f.window->unmap(areas[8]);
  REQUIRE(f.window->purge().ok());
  CHECK(os.calls(OsCall::kMmap) - before == 2);  // the gap of seven pages went along
  CHECK(f.window->stats().free == Pages(256));
  f.window->audit();
}

TEST_CASE("a guard page stands behind an area that asks for one, and none by default") {
  Fixture f;
  const std::byte* plain = f.map({Pfn(1)});
  const std::byte* after = f.map({Pfn(3)});
  const std::byte* guarded = f.map({Pfn(2)}, {.guard = true});
  const std::byte* next = f.map({Pfn(2)}, {.guard = true});
  CHECK(after == plain + kPageBytes);
  CHECK(next == guarded + 2 * kPageBytes);
  CHECK(f.window->find(guarded)->pages == Pages(1));
  CHECK(faults_in_child(guarded + kPageBytes));
}

TEST_CASE("a forked child has neither the direct map nor an alias") {
  Fixture f;
  const std::byte* at = f.map({Pfn(1)});
  CHECK(number_at(at) == 1);
  CHECK(faults_in_child(at));
  CHECK(faults_in_child(f.store->address_of(Pfn(1))));
}

TEST_CASE("a forked child is refused by every call that would touch the window") {
  Fixture f;
  const std::byte* at = f.map(run_of(0, 3));
  f.window->unmap(f.map({Pfn(9)}));
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = f.window->map(run_of(0, 1)).error().code == Errc::kForked &&
                         f.window->purge().error().code == Errc::kForked &&
                         !f.window->purge_slice() && f.window->lazy_pages() == Pages(1);
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  CHECK(number_at(at) == 0);
}

TEST_CASE("a window that dies in a forked child leaves the child's own mappings alone") {
  Fixture f;
  std::byte* at = f.map(run_of(0, 3));
  const auto ending = keel_test::run_in_child([&] {
    // The alias is a hole here: something of the child's own moves in.
    void* own = ::mmap(at, kPageBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (own != at) {
      ::_exit(2);
    }
    std::memset(own, 'c', kPageBytes);
    f.window.reset();
    ::_exit(static_cast<const volatile char*>(own)[kPageBytes - 1] == 'c' ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  CHECK(number_at(at) == 0);
}

TEST_CASE("find() knows the start of a live area and nothing else") {
  Fixture f;
  std::byte* at = f.map(run_of(5, 3), {.owner = "found", .cookie = 77, .guard = true});
  REQUIRE(f.window->find(at).has_value());
  CHECK(f.window->find(at)->pages == Pages(3));
  CHECK(std::strcmp(f.window->find(at)->owner, "found") == 0);
  CHECK(f.window->find(at)->cookie == 77);
  int on_stack = 0;
  for (const void* other :
       {static_cast<const void*>(at + 1), static_cast<const void*>(at + 4096),
        static_cast<const void*>(at + 8 * 4096), static_cast<const void*>(&on_stack),
        static_cast<const void*>(f.store->address_of(Pfn(5)))}) {
    CHECK(!f.window->find(other).has_value());
  }
  f.window->unmap(at);
  CHECK(!f.window->find(at).has_value());
}

TEST_CASE("a window of 1 MiB is filled to its last page, emptied, and filled again") {
  Fixture f;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::byte*> areas;
    for (std::uint64_t i = 0; i < kFrames; ++i) {
      areas.push_back(f.map({Pfn(i)}));
    }
    CHECK(f.window->stats().free == Pages(0));
    CHECK(f.window->map(run_of(0, 1)).error().code == Errc::kNoAddressSpace);
    f.window->audit();
    for (std::byte* area : areas) {
      CHECK(f.window->unmap(area));
    }
    // Nothing is free: the next round's first map() purges by itself.
  }
  CHECK(f.window->stats().map_retries == 2);
  std::byte* whole = f.map(run_of(0, kFrames));
  CHECK(f.window->unmap(whole));
  f.window->audit();
}

TEST_CASE("a run that fits exactly is found although its bin holds smaller ones") {
  Fixture f;
  std::byte* a = f.map(run_of(0, 100));
  f.map({Pfn(0)}, {.guard = true});
  f.map(run_of(0, 154));
  f.window->unmap(a);
  REQUIRE(f.window->purge().ok());
  CHECK(f.window->map(run_of(0, 101)).error().code == Errc::kNoAddressSpace);
  CHECK(f.map(run_of(0, 100)) == a);
}

TEST_CASE("a list without frames, a frame beyond the store, too many pages are refused") {
  Fixture f;
  CHECK(f.window->map(std::vector<Pfn>{}).error().code == Errc::kInvalidArgument);
  CHECK(f.window->map(std::vector<Pfn>{Pfn(kFrames)}).error().code == Errc::kInvalidArgument);
  CHECK(f.window->map(std::vector<Pfn>(257, Pfn(0))).error().code == Errc::kNoAddressSpace);
  CHECK(Window::create(*f.store, {.bytes = 4096}).error().code == Errc::kInvalidArgument);
  CHECK(Window::create(*f.store, {.bytes = (1U << 20) + 1}).error().code == Errc::kInvalidArgument);
  f.window->audit();
}

namespace {

// All frames of a large store over and over, and then one: more pages than 32 bits count, of which
// they would make one.
class WrappingSource final : public FrameSource {
 public:
  explicit WrappingSource(Pages store)
      : store_(store), times_((std::uint64_t{1} << 32) / store.value()) {}
  void rewind() override { given_ = 0; }
  bool next(FrameRun& run) override {
    if (given_ > times_) {
      return false;
    }
    run = {Pfn(0), given_ < times_ ? store_ : Pages(1)};
    ++given_;
    return true;
  }

 private:
  const Pages store_;
  const std::uint64_t times_;
  std::uint64_t given_ = 0;
};

}  // namespace

TEST_CASE("a list of more pages than 32 bits count is refused, and not taken for a short one") {
  FaultOs os;
  ScopedOs scope(os);
  const auto store = FrameStore::create({.capacity_bytes = std::size_t{64} << 30});
  REQUIRE(store.ok());
  const auto window = Window::create(**store, {.bytes = 1U << 20});
  REQUIRE(window.ok());
  os.simulate_mappings();
  WrappingSource frames((*store)->capacity());
  const auto mapped = (*window)->map(frames);
  REQUIRE(!mapped.ok());
  CHECK(mapped.error().code == Errc::kNoAddressSpace);
  CHECK((*window)->stats().live == Pages(0));
}

TEST_CASE("each wrong unmap is told apart and changes nothing") {
  Fixture f;
  BugRecorder bugs;
  std::byte* left = f.map({Pfn(0)}, {.guard = true});
  std::byte* area = f.map(run_of(10, 4), {.owner = "log vector", .guard = true});
  std::byte* right = f.map(run_of(1, 247), {.guard = true});  // all but the last page
  const auto expect = [&](const void* address, Bug bug, const void* start, std::uint64_t bytes,
                          const char* owner) {
    const Snapshot before(*f.window);
    CHECK(!f.window->unmap(address));
    REQUIRE(bugs.count() == 1);
    const BugReport report = bugs.take();
    CHECK(report.bug == bug);
    CHECK(report.address == reinterpret_cast<std::uintptr_t>(address));
    CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(start));
    CHECK(report.area_bytes == bytes);
    CHECK(std::strcmp(report.owner, owner) == 0);
    CHECK(std::strcmp(report.call, "unmap") == 0);
    CHECK(Snapshot(*f.window) == before);
    f.window->audit();
  };
  int on_stack = 0;
  expect(&on_stack, Bug::kUnknownAddress, nullptr, 0, "");
  expect(nullptr, Bug::kUnknownAddress, nullptr, 0, "");
  expect(right + 248 * kPageBytes, Bug::kUnknownAddress, nullptr, 0, "");  // never used
  expect(f.store->address_of(Pfn(10)), Bug::kDirectMapAddress, nullptr, 0, "");
  expect(area + kPageBytes, Bug::kInteriorPointer, area, 4 * kPageBytes, "log vector");
  expect(area + 1, Bug::kInteriorPointer, area, 4 * kPageBytes, "log vector");
  expect(area + 4 * kPageBytes, Bug::kInteriorPointer, area, 4 * kPageBytes, "log vector");
  CHECK(f.window->unmap(area));
  expect(area, Bug::kDoubleFree, area, 4 * kPageBytes, "log vector");  // lazy
  expect(area + kPageBytes, Bug::kUnknownAddress, area, 4 * kPageBytes, "log vector");
  REQUIRE(f.window->purge().ok());
  expect(area, Bug::kDoubleFree, area, 4 * kPageBytes, "log vector");  // purged
  CHECK(f.window->unmap(left));
  REQUIRE(f.window->purge().ok());
  expect(area, Bug::kDoubleFree, area, 4 * kPageBytes, "log vector");  // and beside free pages
  expect(area + kPageBytes, Bug::kUnknownAddress, nullptr, 0, "");
  // The pages in use again: nothing is remembered of the area that began there.
  std::byte* wide = f.map(run_of(20, 6), {.owner = "wide", .guard = true});
  REQUIRE(wide == left);
  expect(area, Bug::kInteriorPointer, wide, 6 * kPageBytes, "wide");
  CHECK(f.window->unmap(wide));
  REQUIRE(f.window->purge().ok());
  expect(area, Bug::kUnknownAddress, nullptr, 0, "");
  expect(wide, Bug::kDoubleFree, wide, 6 * kPageBytes, "wide");
}

TEST_CASE("at the mapping budget map() purges, then refuses, and goes on when there is room") {
  Fixture f({.bytes = 16U << 20, .max_mappings = 11, .shards = 1});
  std::vector<std::byte*> areas;
  for (std::uint64_t i = 0; i < 9; ++i) {
    areas.push_back(f.map({Pfn(2 * i)}));  // side by side: one each, and the gap behind them all
  }
  CHECK(f.window->stats().mappings == 10);
  CHECK(f.window->map(run_of(30, 1)).error().code == Errc::kNoMappings);
  f.window->audit();
  f.window->unmap(areas[8]);
  CHECK(number_at(f.map({Pfn(9)})) == 9);
  CHECK(f.window->stats().map_retries == 1);
  // A longer run costs no more than a page; a scattered list does.
  f.window->unmap(areas[0]);
  f.window->unmap(areas[1]);
  CHECK(number_at(f.map(run_of(30, 100))) == 30);
  CHECK(f.window->map(std::vector<Pfn>{Pfn(1), Pfn(3)}).error().code == Errc::kNoMappings);
  f.window->audit();
}

namespace {

// Counted by the kernel: lines of /proc/self/maps that begin inside the window.
std::uint64_t kernel_mappings(const Window& window) {
  std::uint64_t lines = 0;
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  REQUIRE(maps != nullptr);
  char line[512];
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    std::uintptr_t from = 0;
    REQUIRE(std::sscanf(line, "%" SCNxPTR "-", &from) == 1);
    lines += window.contains(reinterpret_cast<void*>(from)) ? 1U : 0U;
  }
  std::fclose(maps);
  return lines;
}

}  // namespace

TEST_CASE("mappings are what the kernel counts, and never past the budget") {
  for (const unsigned shards : {1U, 4U}) {
    Fixture f({.bytes = 2U << 20, .max_mappings = 200, .shards = shards});
    keel_test::Seeded random("mappings");
    std::vector<std::byte*> areas;
    for (int i = 0; i < 600; ++i) {
      if (random(5) < 3) {
        const auto mapped =
            f.window->map(keel_test::scattered(1 + random(7)), {.guard = random.one_in(2)});
        if (mapped) {
          areas.push_back(static_cast<std::byte*>(*mapped));
        } else {
          CHECK(mapped.error().code == Errc::kNoMappings);
          CHECK(f.window->stats().mappings + shards + 7 > 200);
        }
      } else if (!areas.empty()) {
        std::swap(areas[random(areas.size())], areas.back());
        f.window->unmap(areas.back());
        areas.pop_back();
      }
      if (i % 20 == 0) {
        // Where the first gap has joined a mapping before the window, the kernel has one less.
        const std::uint64_t counted = kernel_mappings(*f.window);
        CHECK(counted <= f.window->stats().mappings);
        CHECK(counted + 1 >= f.window->stats().mappings);
        (void)f.window->purge().ok();
      }
    }
  }
}

TEST_CASE("the default budget is half of vm.max_map_count") {
  Fixture f;
  CHECK(f.window->stats().max_mappings > 1000);
}

TEST_CASE("past the threshold map() puts its frames over a lazy area of the same size") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f({.bytes = 16U << 20, .lazy_max = Pages(8), .shards = 1});
  std::vector<std::byte*> lazy;
  for (int i = 0; i < 3; ++i) {
    lazy.push_back(f.map({Pfn(1), Pfn(3), Pfn(5)}, {.guard = true}));
  }
  for (std::byte* area : lazy) {
    f.window->unmap(area);
  }
  const std::uint64_t before = f.window->stats().mappings;
  std::byte* at = f.map(run_of(20, 3), {.owner = "new", .cookie = 4, .guard = true});
  CHECK(at == lazy[0]);
  CHECK(number_at(at + 2 * kPageBytes) == 22);
  CHECK(faults_in_child(at + 3 * kPageBytes));
  CHECK(f.window->find(at)->cookie == 4);
  CHECK(f.window->stats().purge_calls == 0);
  CHECK(f.window->stats().mappings == before - 2);  // one run for three
  CHECK(f.window->lazy_pages() == Pages(8));
  f.window->audit();
  // If that fails, nothing of the old aliases is left either.
  f.window->unmap(f.map({Pfn(9)}));
  os.fail_nth(1, keel_test::mask_of(OsCall::kMadvise));
  CHECK(f.window->map(run_of(30, 3), {.guard = true}).ok());  // the second attempt
  CHECK(os.fired());
  f.window->audit();
}

TEST_CASE("past the threshold map() of another size purges in slices, for what it takes itself") {
  Fixture f({.bytes = 16U << 20, .lazy_max = Pages(300), .shards = 1});
  for (int i = 0; i < 31; ++i) {
    f.window->unmap(f.map(keel_test::scattered(10)));
  }
  CHECK(f.window->stats().purge_calls == 0);
  f.map({Pfn(1)});
  CHECK(f.window->stats().purge_slices == 1);
  CHECK(f.window->lazy_pages() == Pages(310 - 60));  // of 10 mappings each, 64 at most
  CHECK(f.window->stats().purges == 0);
  f.window->audit();
}

TEST_CASE("when the kernel refuses a mapping, map() purges and tries again") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  f.window->unmap(f.map({Pfn(1)}));
  os.fail_nth(1, keel_test::mask_of(OsCall::kMremap));
  CHECK(f.window->map(run_of(2, 1)).ok());
  CHECK(os.fired());
  CHECK(f.window->stats().map_retries == 1);
  f.window->audit();
}

TEST_CASE("a map() that fails at any call leaves the window as it was") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  const std::byte* neighbour = f.map({Pfn(0)});
  const Snapshot before(*f.window);
  const std::uint64_t kernel_before = kernel_mappings(*f.window);
  const std::vector<Pfn> scattered = {Pfn(1), Pfn(3), Pfn(5), Pfn(7)};
  std::uint64_t n = 1;
  for (;; ++n) {
    os.fail_nth(n);
    const auto mapped = f.window->map(scattered, {.guard = true});
    if (!os.fired()) {
      break;
    }
    CHECK(mapped.error().code == Errc::kNoMemory);
    CHECK(Snapshot(*f.window) == before);
    CHECK(kernel_mappings(*f.window) == kernel_before);
    CHECK(number_at(neighbour) == 0);
    f.window->audit();
  }
  CHECK(n == 6);  // four runs, populated with one call
}

TEST_CASE("when undoing a failed map() fails too, the addresses stay lazy and are not lost") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  os.fail_from(3, keel_test::mask_of(OsCall::kMmap) | keel_test::mask_of(OsCall::kMremap));
  CHECK(!f.window->map(std::vector<Pfn>{Pfn(1), Pfn(3), Pfn(5)}).ok());
  f.window->audit();
  CHECK(f.window->stats().lazy == Pages(3));
  os.disarm();
  CHECK(f.window->purge().ok());
  CHECK(f.window->stats().free == Pages(256));
  f.window->audit();
}

TEST_CASE("a purge that the kernel refuses keeps every range lazy") {
  FaultOs os;
  ScopedOs scope(os);
  Fixture f;
  std::vector<std::byte*> areas;
  for (std::uint64_t i = 0; i < 6; ++i) {
    areas.push_back(f.map({Pfn(i)}));
  }
  f.window->unmap(areas[1]);
  REQUIRE(f.window->purge().ok());  // a gap between lazy areas
  f.window->unmap(areas[0]);
  f.window->unmap(areas[2]);
  f.window->unmap(areas[5]);
  const Snapshot before(*f.window);
  os.fail_from(1, keel_test::mask_of(OsCall::kMmap));
  CHECK(f.window->purge().error().code == Errc::kNoMemory);
  CHECK(Snapshot(*f.window) == before);
  f.window->audit();
  os.fail_nth(1, keel_test::mask_of(OsCall::kMmap));
  CHECK(!f.window->purge().ok());  // one range refused, the other purged
  CHECK(f.window->stats().lazy < before.stats.lazy);
  CHECK(f.window->stats().lazy > Pages(0));
  f.window->audit();
  os.disarm();
  CHECK(f.window->purge().ok());
  CHECK(f.window->stats().lazy == Pages(0));
  f.window->audit();
}

TEST_CASE("creating a window survives every failing call and leaks nothing") {
  auto store = FrameStore::create({.capacity_bytes = 1U << 20, .chunk_bytes = 1U << 20});
  REQUIRE(store.ok());
  FaultOs os;
  ScopedOs scope(os);
  for (std::uint64_t n = 1;; ++n) {
    os.fail_nth(n);
    (void)Window::create(**store, {.bytes = 1U << 20}).ok();
    CHECK(os.holds_nothing());
    if (!os.fired()) {
      break;
    }
  }
}

namespace {

// Holds the first mapping of nothing (a purge's) until it is let go.
class BlockingOs : public Os {
 public:
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if (address != nullptr && protection == PROT_NONE) {
      std::unique_lock lock(mutex_);
      blocked_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return released_; });
    }
    return Os::mmap(address, bytes, protection, flags, fd, offset, out);
  }
  void wait_until_blocked() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return blocked_; });
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool blocked_ = false;
  bool released_ = false;
};

}  // namespace

TEST_CASE("map() and unmap() go on while a purge is in the kernel") {
  BlockingOs os;
  ScopedOs scope(os);
  // One shard: a purge goes from one to the next, and would take along what came late to that.
  Fixture f({.bytes = 16U << 20, .shards = 1});
  f.window->unmap(f.map(run_of(0, 8)));
  std::thread purger([&] { CHECK(f.window->purge().ok()); });
  os.wait_until_blocked();
  std::byte* at = f.map(run_of(8, 8));  // would wait for ever on a lock held over the call
  CHECK(f.window->unmap(at));
  f.window->audit();
  os.release();
  purger.join();
  CHECK(f.window->stats().lazy == Pages(8));  // came after the purge had begun
  f.window->audit();
}

TEST_CASE("a purge removes all that was lazy when it began, also if later areas go along") {
  BlockingOs os;
  ScopedOs scope(os);
  Fixture f({.bytes = 1U << 20, .shards = 1});
  std::vector<std::byte*> slots;
  for (std::uint64_t i = 0; i < 8; ++i) {
    slots.push_back(f.map({Pfn(i)}));
  }
  for (const std::size_t i : {0U, 2U, 6U}) {
    f.window->unmap(slots[i]);
  }
  std::thread purger([&] { CHECK(f.window->purge().ok()); });
  os.wait_until_blocked();    // over the first
  f.window->unmap(slots[3]);  // goes along with the second, and must not count for the third
  os.release();
  purger.join();
  CHECK(f.window->lazy_pages() == Pages(0));
  CHECK(number_at(slots[5]) == 5);
  f.window->audit();
}
