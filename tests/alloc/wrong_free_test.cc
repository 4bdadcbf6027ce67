// Wrong frees, a table of small programs: each is told apart, with the buffer and its owner, and
// changes nothing.
#include <doctest/doctest.h>

#include <cstdlib>
#include <initializer_list>

#include "cpu_pin.h"
#include "pool_support.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;
using namespace keel_test;

namespace {

// How the buffer under test is made, and what has become of it.
enum class Tier { kContiguous, kMapped, kHuge };
enum class State { kLive, kReused, kCached, kEvicted, kPurged, kTrimmed };
// Which address is given back, as seen from the buffer.
enum class Where { kStart, kByteInside, kPageInside, kLastPage, kLastByte, kDirectMap };

struct Expected {
  Bug bug;
  bool knows_area;  // and its owner
};

constexpr std::size_t kScattered = 8 * kPage;

std::size_t size_of(Tier tier) {
  switch (tier) {
    case Tier::kContiguous: return 5 * kPage;
    case Tier::kMapped: return kScattered;
    default: return 5 * kMiB;
  }
}

// A pool with one buffer, of the tier and in the state.
class Scene {
 public:
  Scene(Tier tier, State state, bool hardened)
      : pool(make_pool({.capacity_bytes = 32 * kMiB,
                        .chunk_bytes = tier == Tier::kMapped ? 4 * kMiB : kMiB,
                        .window_bytes = 64 * kMiB,
                        .hardened = hardened})) {
    if (tier == Tier::kMapped && !hardened) {
      others_ = fragment(*pool);
    }
    size = size_of(tier);
    buffer = get("first");
    if (state != State::kLive) {
      pool->kvfree(buffer);
    }
    switch (state) {
      case State::kReused: buffer = get("owner"); break;
      case State::kEvicted: evict(); break;
      case State::kPurged:
        evict();
        pool->purge();
        break;
      case State::kTrimmed:
        free_all(*pool, others_);
        pool->trim();
        break;
      default: break;
    }
    owner = state == State::kReused ? "owner" : "first";
    direct = tier == Tier::kContiguous && !hardened;
  }
  ~Scene() {
    free_all(*pool, others_);
    pool->audit();
  }

  std::unique_ptr<Pool> pool;
  std::byte* buffer = nullptr;
  std::size_t size = 0;
  const char* owner = "";
  bool direct = false;  // the buffer's address is one of the direct map

 private:
  std::byte* get(const char* for_whom) {
    auto* made = static_cast<std::byte*>(pool->kvmalloc(size, AllocFlags::kKernel, for_whom));
    REQUIRE(made != nullptr);
    return made;
  }
  // Idle buffers are taken apart, and nothing else: a request that cannot be met.
  void evict() {
    const Messages messages;
    void* stone = pool->kvmalloc(1);
    CHECK(pool->kvmalloc(32 * kMiB) == nullptr);
    pool->kvfree(stone);
    REQUIRE(pool->stats().cached + pool->stats().quarantined <= Bytes(kPage));
  }
  std::vector<void*> others_;
};

std::byte* address(const Scene& scene, Where where) {
  switch (where) {
    case Where::kByteInside: return scene.buffer + 1;
    case Where::kPageInside: return scene.buffer + kPage;
    case Where::kLastPage: return scene.buffer + scene.size - kPage;
    case Where::kLastByte: return scene.buffer + scene.size - 1;
    default: return scene.buffer;
  }
}

Expected expected(const Scene& scene, State state, Where where) {
  const bool live = state == State::kLive || state == State::kReused;
  if (live) {
    return {Bug::kInteriorPointer, true};
  }
  if (where != Where::kStart) {
    return {Bug::kUnknownAddress, false};
  }
  // The frames' records go with their chunk.
  if (scene.direct && state == State::kTrimmed) {
    return {Bug::kUnknownAddress, false};
  }
  return {Bug::kDoubleFree, true};
}

// One program: the free must be reported so, and change nothing.
void run(Tier tier, State state, Where where, bool hardened) {
  CAPTURE(static_cast<int>(tier));
  CAPTURE(static_cast<int>(state));
  CAPTURE(static_cast<int>(where));
  CAPTURE(hardened);
  BugRecorder bugs;
  Scene scene(tier, state, hardened);
  const Expected right = expected(scene, state, where);
  const PoolStats before = scene.pool->stats();
  scene.pool->kvfree(address(scene, where));
  REQUIRE(bugs.count() == 1);
  const BugReport report = bugs.take();
  CHECK(to_string(report.bug) == doctest::String(to_string(right.bug)));
  CHECK(report.call == doctest::String("kvfree"));
  CHECK(report.address == reinterpret_cast<std::uintptr_t>(address(scene, where)));
  if (right.knows_area) {
    CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(scene.buffer));
    CHECK(report.area_bytes == scene.size);
    CHECK(report.owner == doctest::String(scene.owner));
  }
  const PoolStats after = scene.pool->stats();
  CHECK(after.live == before.live);
  CHECK(after.frees == before.frees);
  CHECK(after.free == before.free);
  CHECK(after.cached == before.cached);
  CHECK(after.quarantined == before.quarantined);
  CHECK(after.lazy == before.lazy);
  scene.pool->audit();
  if (state == State::kLive || state == State::kReused) {
    scene.pool->kvfree(scene.buffer);
    CHECK(bugs.count() == 0);
  }
}

// All programs of the tier; returns how many.
std::uint64_t run_all(Tier tier, bool hardened) {
  std::uint64_t programs = 0;
  for (const State state : {State::kLive, State::kReused, State::kCached, State::kEvicted,
                            State::kPurged, State::kTrimmed}) {
    for (const Where where : {Where::kStart, Where::kByteInside, Where::kPageInside,
                              Where::kLastPage, Where::kLastByte}) {
      const bool live = state == State::kLive || state == State::kReused;
      // A hardened pool does not use a buffer again, nor is a live one's start wrong.
      if ((live && where == Where::kStart) || (hardened && state == State::kReused)) {
        continue;
      }
      run(tier, state, where, hardened);
      ++programs;
    }
  }
  return programs;
}

void run_rounds(std::initializer_list<Tier> tiers, bool hardened) {
  std::uint64_t programs = 0;
  for (std::uint64_t round = 0; round < test_rounds(1, 1); ++round) {
    for (const Tier tier : tiers) {
      programs += run_all(tier, hardened);
    }
  }
  say_tried("wrong_free", programs);
}

void expect_unknown(Pool& pool, BugRecorder& bugs, void* wrong) {
  const PoolStats before = pool.stats();
  pool.kvfree(wrong);
  REQUIRE(bugs.count() == 1);
  const BugReport report = bugs.take();
  CHECK(report.bug == Bug::kUnknownAddress);
  CHECK(report.address == reinterpret_cast<std::uintptr_t>(wrong));
  CHECK(report.owner == doctest::String(""));
  CHECK(pool.stats().live == before.live);
  CHECK(pool.stats().frees == before.frees);
  pool.audit();
}

}  // namespace

TEST_CASE("wrong frees of contiguous buffers are told apart") {
  run_rounds({Tier::kContiguous}, false);
}
TEST_CASE("wrong frees of mapped buffers are told apart") { run_rounds({Tier::kMapped}, false); }
TEST_CASE("wrong frees of huge buffers are told apart") { run_rounds({Tier::kHuge}, false); }
TEST_CASE("wrong frees in a hardened pool are told apart") {
  run_rounds({Tier::kContiguous, Tier::kHuge}, true);
}

TEST_CASE("what no pool gave out is told to be unknown") {
  BugRecorder bugs;
  for (const bool hardened : {false, true}) {
    const auto pool =
        make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB, .hardened = hardened});
    const auto other = make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
    auto* mine = static_cast<std::byte*>(pool->kvmalloc(100));
    int on_stack = 0;
    static int in_image = 0;
    const std::unique_ptr<char[]> on_heap(new char[100'000]);
    void* theirs = other->kvmalloc(100);
    void* theirs_mapped = other->kvmalloc(5 * kMiB);
    for (void* wrong :
         {static_cast<void*>(&on_stack), static_cast<void*>(&in_image),
          static_cast<void*>(on_heap.get()), theirs, theirs_mapped,
          static_cast<void*>(mine + 40 * kMiB), reinterpret_cast<void*>(std::uintptr_t{1}),
          reinterpret_cast<void*>(~std::uintptr_t{0}),
          reinterpret_cast<void*>(~std::uintptr_t{0} - kPage + 1)}) {
      expect_unknown(*pool, bugs, wrong);
    }
    other->kvfree(theirs);
    other->kvfree(theirs_mapped);
    pool->kvfree(mine);
    CHECK(bugs.count() == 0);
  }
}

TEST_CASE(
    "direct-map addresses of a mapped buffer's frames name its owner, whoever had it before") {
  const keel_test::Pinned here;  // What is idle lies with the CPU that freed it.
  BugRecorder bugs;
  const auto pool =
      make_pool({.capacity_bytes = 2 * kMiB, .chunk_bytes = kMiB, .window_bytes = 16 * kMiB});
  auto held = fragment(*pool);
  void* buffer = pool->kvmalloc(kScattered, AllocFlags::kKernel, "first");
  pool->kvfree(buffer);
  REQUIRE(pool->kvmalloc(kScattered, AllocFlags::kKernel, "owner") == buffer);
  unsigned found = 0;
  for (void* page : held) {
    pool->kvfree(static_cast<std::byte*>(page) - kPage);
    REQUIRE(bugs.count() == 1);
    const BugReport report = bugs.take();
    if (report.bug == Bug::kDirectMapAddress) {
      ++found;
      CHECK(report.owner == doctest::String("owner"));
    }
  }
  CHECK(found == kScattered / kPage);
  pool->audit();
  pool->kvfree(buffer);
  free_all(*pool, held);
  CHECK(bugs.count() == 0);
}

TEST_CASE("a second free of a mapped buffer is told when its frames are another one's by then") {
  BugRecorder bugs;
  const auto pool = make_pool({.capacity_bytes = 8 * kMiB, .window_bytes = 64 * kMiB});
  void* first = pool->kvmalloc(5 * kMiB, AllocFlags::kKernel, "first");
  pool->kvfree(first);
  void* second = pool->kvmalloc(5 * kMiB, AllocFlags::kKernel, "second");
  REQUIRE(second != nullptr);
  REQUIRE(second != first);  // whose addresses are lazy
  pool->kvfree(first);
  REQUIRE(bugs.count() == 1);
  CHECK(bugs.take().bug == Bug::kDoubleFree);
  CHECK(pool->stats().live == Bytes(5 * kMiB));
  pool->audit();
  pool->kvfree(second);
  CHECK(bugs.count() == 0);
}

TEST_CASE("a wrong free ends the program, and says what and whose it was") {
  struct Program {
    const char* says;
    void (*act)(Pool&);
  };
  static constexpr Program kPrograms[]{
      {"double free",
       [](Pool& pool) {
         void* buffer = pool.kvmalloc(100, AllocFlags::kKernel, "mine");
         pool.kvfree(buffer);
         pool.kvfree(buffer);
       }},
      {"interior pointer",
       [](Pool& pool) {
         pool.kvfree(static_cast<char*>(pool.kvmalloc(9000, AllocFlags::kKernel, "mine")) + 8);
       }},
      {"owner 'mine'",
       [](Pool& pool) {
         pool.kvfree(static_cast<char*>(pool.kvmalloc(6 * kMiB, AllocFlags::kKernel, "mine")) +
                     kPage);
       }},
      {"kvfree_sized", [](Pool& pool) { pool.kvfree_sized(pool.kvmalloc(100), 101); }},
      {"kvsize", [](Pool& pool) { (void)pool.kvsize(&pool); }},
      {"kvrealloc", [](Pool& pool) { (void)pool.kvrealloc(&pool, 5); }},
  };
  std::uint64_t programs = 0;
  for (std::uint64_t round = 0; round < test_rounds(1, 1); ++round) {
    for (const Program& program : kPrograms) {
      const auto ending = run_in_child([&] {
        program.act(*make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB}));
      });
      CAPTURE(ending.errors);
      CHECK(ending.aborted_with(program.says));
      ++programs;
    }
  }
  say_tried("wrong_free_dies", programs);
}
