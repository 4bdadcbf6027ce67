// A forked child has none of the pool's memory and must not reach the parent's.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>

#include "keel/base/thread.h"
#include "pool_support.h"
#include "support/death.h"
#include "support/kernel_threads.h"

using namespace keel;
using keel_test::run_in_child;

namespace {

void wait_until_asleep(const char* thread) {
  pid_t id = 0;
  while (id == 0 || !keel_test::is_asleep(id)) {
    id = keel_test::thread_named(thread);
    std::this_thread::yield();
  }
}

std::unique_ptr<Pool> make_pool() {
  auto pool = Pool::create(
      {.capacity_bytes = std::size_t{64} << 20, .window_bytes = std::size_t{256} << 20});
  REQUIRE(pool.ok());
  return std::move(*pool);
}

}  // namespace

TEST_CASE("a forked child gets nothing from its parent's pool, in either tier") {
  const auto pool = make_pool();
  constexpr std::size_t kLarge = std::size_t{6} << 20;  // beyond the contiguous tier
  auto* small = static_cast<char*>(pool->kvmalloc(kPageBytes));
  auto* large = static_cast<char*>(pool->kvmalloc(kLarge));
  REQUIRE(small != nullptr);
  REQUIRE(large != nullptr);
  std::memset(large, 'p', kLarge);
  pool->kvfree(small);  // free frames, for the child to be tempted by
  const auto ending = run_in_child([&] {
    const bool refused = pool->kvmalloc(kPageBytes) == nullptr &&
                         pool->kvmalloc(kLarge) == nullptr &&
                         pool->kvmalloc(kPageBytes, AllocFlags::kNoFail) == nullptr;
    pool->kvfree(large);
    pool->purge();
    pool->upkeep();
    const bool unchanged = pool->trim() == Bytes(0) && pool->kvsize(large) == 0 &&
                           pool->reserve(Bytes(kPageBytes)).error().code == Errc::kForked &&
                           pool->kvrealloc(large, kPageBytes) == nullptr;
    pool->kvfree_sized(large, 5);
    _exit(refused && unchanged && !pool->owned_by_this_process() ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  for (std::size_t i = 0; i < kLarge; ++i) {
    REQUIRE(large[i] == 'p');
  }
  CHECK(pool->owned_by_this_process());
  pool->kvfree(large);
  pool->audit();
}

TEST_CASE(
    "in a forked child nothing is said of a parent's pool, whose locks may be held for ever") {
  for (const bool system_malloc : {false, true}) {
    // With a thread that grows it as well, a buffer may be mapped where a run is free.
    auto pool = Pool::create({.capacity_bytes = std::size_t{64} << 20,
                              .background = false,
                              .system_malloc = system_malloc});
    REQUIRE(pool.ok());
    std::array<void*, 2> held{};
    for (std::size_t i = 0; i < held.size(); ++i) {
      held[i] = (*pool)->kvmalloc(100 * (1 + i * 1000), AllocFlags::kKernel, "held");
      REQUIRE((*pool)->is_contiguous(held[i]));
    }
    std::array<OwnerBytes, 4> largest;
    CHECK((*pool)->holders(largest) != 0);
    const auto ending = run_in_child([&] {
      const PoolStats stats = (*pool)->stats();
      bool right = stats.capacity == Bytes(0) && stats.live == Bytes(0) && stats.small == Bytes(0);
      right = right && (*pool)->holders(largest) == 0;
      for (const void* buffer : held) {
        right = right && !(*pool)->is_contiguous(buffer);
      }
      _exit(right ? 0 : 1);
    });
    CHECK(ending.exit_code == 0);
    for (void* buffer : held) {
      (*pool)->kvfree(buffer);
    }
  }
}

TEST_CASE("a forked child gets no small object from its parent's pool, and frees none") {
  const auto pool = make_pool();
  REQUIRE(pool->reserve(Bytes(std::size_t{1} << 20)).ok());
  auto* small = static_cast<char*>(pool->kvmalloc(64));
  REQUIRE(pool->kvsize(small) == 64);
  std::memset(small, 's', 64);
  const auto ending = run_in_child([&] {
    const bool refused = pool->kvmalloc(64) == nullptr && pool->kvrealloc(small, 100) == nullptr &&
                         pool->kvsize(small) == 0;
    pool->kvfree(small);
    _exit(refused ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  CHECK(small[63] == 's');
  CHECK(pool->kvsize(small) == 64);
  pool->kvfree(small);
}

TEST_CASE("a forked child that frees a hardened parent's buffer looks at nothing there") {
  auto pool = Pool::create(
      {.capacity_bytes = std::size_t{16} << 20, .background = false, .hardened = true});
  REQUIRE(pool.ok());
  void* buffer = (*pool)->kvmalloc(100);
  REQUIRE(buffer != nullptr);
  const auto ending = run_in_child([&] {
    // The buffer is a hole here: something of the child's own moves in.
    void* own = ::mmap(buffer, 4096, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (own != buffer) {
      _exit(2);
    }
    std::memset(own, 'c', 4096);
    (*pool)->kvfree(buffer);
    std::memset(own, 'd', 4096);
    _exit(0);
  });
  CHECK(ending.exit_code == 0);
  CHECK(ending.errors == "");
  (*pool)->kvfree(buffer);
  (*pool)->audit();
}

TEST_CASE("a pool that dies in a forked child leaves the child's own mappings alone") {
  auto pool = make_pool();
  void* held = pool->kvmalloc(4096);
  REQUIRE(held != nullptr);
  const auto ending = run_in_child([&] {
    // The direct map is a hole here: something of the child's own moves in.
    void* own = ::mmap(held, 4096, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (own == MAP_FAILED) {
      _exit(2);
    }
    std::memset(own, 'c', 4096);
    pool.reset();
    _exit(static_cast<char*>(own)[4095] == 'c' ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  pool->kvfree(held);
}

TEST_CASE("a pool that dies in a forked child does not wait for its parent's keeper") {
  auto pool = make_pool();
  // Where it rests: what it sleeps on would wait, when it dies, for a thread that the child lacks.
  wait_until_asleep("keel-keeper");
  const auto ending = run_in_child([&] {
    pool.reset();
    _exit(0);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a pool that dies in a forked child waits for no thread that waited for shrinkers") {
  auto pool =
      keel_test::make_pool({.capacity_bytes = 2 * keel_test::kMiB, .chunk_bytes = keel_test::kMiB});
  auto buffers = keel_test::fill(*pool, 8 * keel_test::kPage);
  std::atomic<bool> asked{false};
  std::atomic<bool> go{false};
  keel_test::FunctionShrinker shrinker([&](Bytes /*wanted*/) {
    asked = true;
    while (!go) {
      std::this_thread::yield();
    }
    return Bytes(0);
  });
  REQUIRE(pool->add_shrinker(shrinker).ok());
  const auto ask = [&] { (void)pool->kvmalloc(keel_test::kMiB, AllocFlags::kNoWarn); };
  Thread first("first", ask);
  while (!asked) {
    std::this_thread::yield();
  }
  Thread second("second", ask);
  wait_until_asleep("second");
  const auto ending = run_in_child([&] {
    pool.reset();
    _exit(0);
  });
  CHECK(ending.exit_code == 0);
  go = true;
  first.join();
  second.join();
  pool->remove_shrinker(shrinker);
  keel_test::free_all(*pool, buffers);
}

TEST_CASE("a forked child's calls for shrinkers and limits are refused, and open nothing") {
  const keel_test::Messages messages;
  const auto pool =
      keel_test::make_pool({.capacity_bytes = 2 * keel_test::kMiB, .chunk_bytes = keel_test::kMiB});
  constexpr std::size_t kSize = 8 * keel_test::kPage;
  auto buffers = keel_test::fill(*pool, kSize);
  REQUIRE(pool->kvmalloc(kSize, AllocFlags::kNoWarn) == nullptr);  // Short of memory from now on.
  keel_test::FunctionShrinker own([](Bytes /*wanted*/) { return Bytes(0); });
  const auto ending = run_in_child([&] {
    const Status added = pool->add_shrinker(own);
    const Status limited = pool->set_limit("child", Bytes(1));
    const bool refused = !added.ok() && added.error().code == Errc::kForked &&  //
                         !limited.ok() && limited.error().code == Errc::kForked;
    for (void* buffer : buffers) {
      pool->kvfree(buffer);
    }
    _exit(refused && pool->kvmalloc(kSize, AllocFlags::kNoWarn) == nullptr ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  keel_test::free_all(*pool, buffers);
}

TEST_CASE("a shrinker's owner that dies in a forked child waits for no scan of the parent's") {
  const keel_test::Messages messages;
  const auto pool =
      keel_test::make_pool({.capacity_bytes = 2 * keel_test::kMiB, .chunk_bytes = keel_test::kMiB});
  auto buffers = keel_test::fill(*pool, 8 * keel_test::kPage);
  keel_test::Ending ending;
  std::optional<keel_test::FunctionShrinker> shrinker;
  shrinker.emplace([&](Bytes /*wanted*/) {
    ending = run_in_child([&] {
      pool->remove_shrinker(*shrinker);
      _exit(0);
    });
    return Bytes(0);
  });
  REQUIRE(pool->add_shrinker(*shrinker).ok());
  CHECK(pool->kvmalloc(keel_test::kMiB, AllocFlags::kNoWarn) == nullptr);
  CHECK(ending.exit_code == 0);
  pool->remove_shrinker(*shrinker);
  keel_test::free_all(*pool, buffers);
}
