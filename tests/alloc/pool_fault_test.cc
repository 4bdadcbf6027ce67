// Every public call of a pool, with the N-th system call or allocation of metadata in it failing,
// for every N: what failed has changed nothing, the rest goes on, and nothing leaks.
#include <doctest/doctest.h>

#include <fstream>

#include "keel/base/os.h"
#include "pool_support.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kMostCalls = 300;

struct Scene {
  std::unique_ptr<Pool> pool;
  std::vector<void*> held;
  void* buffer = nullptr;  // what the act is about
  FunctionShrinker shrinker{[](Bytes) { return Bytes(0); }};
};

// One public call. `prepare` and what comes after have no faults.
struct Act {
  const char* name;
  void (*prepare)(Scene&);
  bool (*call)(Scene&);  // false: it failed
  bool hardened = false;
};

void nothing(Scene&) {}
bool got(Scene& scene, void* made) {
  if (made != nullptr) {
    scene.held.push_back(made);
  }
  return made != nullptr;
}
void make_scattered(Scene& scene) { scene.held = fragment(*scene.pool); }
void make_huge(Scene& scene) { scene.buffer = scene.pool->kvmalloc(5 * kMiB); }
void make_small(Scene& scene) { scene.buffer = scene.pool->kvmalloc(9000); }
void make_idle(Scene& scene) {
  make_huge(scene);
  void* other = scene.pool->kvmalloc(70'000);
  scene.pool->kvfree(scene.buffer);
  scene.pool->kvfree(other);
  scene.buffer = nullptr;
}
bool free_it(Scene& scene) {
  scene.pool->kvfree(scene.buffer);
  scene.buffer = nullptr;
  return true;
}
bool move_it(Scene& scene, std::size_t size) {
  void* moved = scene.pool->kvrealloc(scene.buffer, size, AllocFlags::kNoWarn);
  scene.buffer = moved != nullptr ? moved : scene.buffer;
  return moved != nullptr;
}

template <std::size_t size, AllocFlags flags = AllocFlags::kNoWarn>
bool allocate(Scene& scene) {
  return got(scene, scene.pool->kvmalloc(size, flags | AllocFlags::kNoWarn));
}

constexpr Act kActs[]{
    {"kvmalloc, growing", nothing, allocate<100'000>},
    {"kvmalloc, cleared", nothing, allocate<100'000, AllocFlags::kZero>},
    {"kvmalloc, from the cache", make_idle, allocate<70'000>},
    {"kvmalloc, scattered", make_scattered, allocate<6 * kPage>},
    {"kvmalloc, huge", nothing, allocate<5 * kMiB>},
    {"kvmalloc, contiguous at a price", make_scattered,
     allocate<3 * kPage, AllocFlags::kRetryMayfail>},
    {"kvmalloc, hardened", nothing, allocate<9000>, true},
    {"kvfree", make_small, free_it},
    {"kvfree, huge", make_huge, free_it},
    {"kvfree, hardened", make_small, free_it, true},
    {"kvrealloc", make_small, [](Scene& scene) { return move_it(scene, 5 * kMiB); }},
    {"kvrealloc, smaller", make_huge, [](Scene& scene) { return move_it(scene, 100); }},
    {"kvrealloc, hardened", make_small, [](Scene& scene) { return move_it(scene, 9500); }, true},
    {"reserve", nothing, [](Scene& scene) { return scene.pool->reserve(Bytes(3 * kMiB)).ok(); }},
    {"trim", make_idle, [](Scene& scene) { return scene.pool->trim() != Bytes(0); }},
    {"purge", make_idle, [](Scene& scene) { return scene.pool->purge(), true; }},
    {"upkeep", make_idle, [](Scene& scene) { return scene.pool->upkeep(), true; }},
    {"set_limit", nothing,
     [](Scene& scene) { return scene.pool->set_limit("x", Bytes(kPage)).ok(); }},
    {"add_shrinker", nothing,
     [](Scene& scene) { return scene.pool->add_shrinker(scene.shrinker).ok(); }},
};

void check_unchanged(const PoolStats& before, const PoolStats& after) {
  CHECK(after.live == before.live);
  CHECK(after.free + after.cached + after.quarantined == after.populated - after.live);
}

// False once the act makes fewer calls than `n`.
bool run(const Act& act, FaultOs& os, std::uint64_t n, bool for_ever) {
  Scene scene;
  scene.pool = make_pool({.capacity_bytes = 8 * kMiB,
                          .window_bytes = 16 * kMiB,
                          .system_malloc = true,
                          .hardened = act.hardened});
  act.prepare(scene);
  const PoolStats before = scene.pool->stats();
  for_ever ? os.fail_from(n) : os.fail_nth(n);
  const bool succeeded = act.call(scene);
  os.disarm();
  const bool fired = os.fired();
  CHECK((fired || succeeded));
  scene.pool->audit();
  if (!succeeded) {
    check_unchanged(before, scene.pool->stats());
    CHECK(act.call(scene));  // As if nothing had been.
  }
  scene.pool->kvfree(scene.buffer);
  free_all(*scene.pool, scene.held);
  CHECK(scene.pool->stats().live == Bytes(0));
  scene.pool->audit();
  scene.pool->remove_shrinker(scene.shrinker);
  return fired;
}

std::size_t mappings_of_process() {
  std::ifstream maps("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(maps, line);) {
    ++lines;
  }
  return lines;
}

}  // namespace

TEST_CASE("every call of a pool survives each of its system calls failing, and leaks nothing") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  for (const Act& act : kActs) {
    CAPTURE(act.name);
    (void)run(act, os, kMostCalls, false);  // The heap has what it needs.
    [[maybe_unused]] const std::size_t mappings = mappings_of_process();
    for (const bool for_ever : {false, true}) {
      std::uint64_t n = 1;
      while (run(act, os, n, for_ever)) {
        CAPTURE(n);
        CHECK(os.holds_nothing());
        REQUIRE(++n < kMostCalls);
      }
    }
    CHECK(os.holds_nothing());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // They map what they like.
    CHECK(mappings_of_process() <= mappings + 1);
#endif
  }
}

TEST_CASE("making any pool survives each of its system calls failing, and leaks nothing") {
  FaultOs os;
  const ScopedOs scope(os);
  for (const bool hardened : {false, true}) {
    for (const bool for_ever : {false, true}) {
      [[maybe_unused]] std::size_t mappings = 0;
      for (std::uint64_t n = 1;; ++n) {
        for_ever ? os.fail_from(n) : os.fail_nth(n);
        const bool made = Pool::create({.capacity_bytes = 4 * kMiB,
                                        .window_bytes = 16 * kMiB,
                                        .initial_bytes = 2 * kMiB,
                                        .background = false,
                                        .system_malloc = true,
                                        .hardened = hardened})
                              .ok();
        CAPTURE(n);
        CHECK(os.holds_nothing());
        mappings = n == 1 ? mappings_of_process() : mappings;
        if (!os.fired()) {
          CHECK(made);
          break;
        }
        REQUIRE(n < kMostCalls);
      }
      os.disarm();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
      CHECK(mappings_of_process() <= mappings + 1);
#endif
    }
  }
}
