// A pool with nothing left: what each flag promises then.
#include <doctest/doctest.h>

#include <optional>

#include "cpu_pin.h"
#include "keel/base/mutex.h"
#include "keel/base/scopes.h"
#include "pool_support.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kSize = 64U << 10;
constexpr PoolConfig kTwoMiB{
    .capacity_bytes = 2 * kMiB, .chunk_bytes = kMiB, .window_bytes = 16 * kMiB};

// A pool whose memory one hog holds, so that nothing was tried in vain yet.
struct Full {
  explicit Full(PoolConfig config = kTwoMiB) : pool(make_pool(config)) {
    for (std::size_t i = 0; i < 2 * kMiB / kSize; ++i) {
      buffers.push_back(pool->kvmalloc(kSize, AllocFlags::kKernel, "hog"));
      REQUIRE(buffers.back() != nullptr);
    }
  }
  ~Full() {
    free_all(*pool, buffers);
    pool->audit();
    CHECK(pool->stats().live == Bytes(0));
  }
  void free_one() {
    pool->kvfree(buffers.back());
    buffers.pop_back();
  }
  std::unique_ptr<Pool> pool;
  std::vector<void*> buffers;
};

FunctionShrinker gives_nothing() {
  return FunctionShrinker([](Bytes) { return Bytes(0); });
}

}  // namespace

TEST_CASE("a full pool refuses kKernel after one pass, which asks the shrinkers and says so") {
  const Messages messages;
  Full full;
  FunctionShrinker shrinker = gives_nothing();
  REQUIRE(full.pool->add_shrinker(shrinker).ok());
  CHECK(full.pool->kvmalloc(kSize) == nullptr);
  CHECK(full.pool->stats().reclaims == 1);
  CHECK(shrinker.calls == 1);
  CHECK(Messages::lines().size() == 1);
  full.pool->remove_shrinker(shrinker);
}

TEST_CASE("after a pass that found nothing refusal is at once, until the next free") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  Full full;
  FunctionShrinker shrinker = gives_nothing();
  REQUIRE(full.pool->add_shrinker(shrinker).ok());
  CHECK(full.pool->kvmalloc(kSize) == nullptr);
  for (const AllocFlags flags : {AllocFlags::kKernel, AllocFlags::kNoFs, AllocFlags::kNoWait,
                                 AllocFlags::kZero, AllocFlags::kRetryMayfail}) {
    const PoolStats before = full.pool->stats();
    CHECK(full.pool->kvmalloc(kSize, flags | AllocFlags::kNoWarn) == nullptr);
    CHECK(full.pool->kvmalloc(2 * kSize, flags | AllocFlags::kNoWarn) == nullptr);
    const PoolStats after = full.pool->stats();
    CHECK(after.refusals == before.refusals + 2);
    CHECK(after.reclaims == before.reclaims);
  }
  CHECK(shrinker.calls == 1);
  full.free_one();
  void* buffer = full.pool->kvmalloc(kSize);
  CHECK(buffer != nullptr);
  full.buffers.push_back(buffer);
  full.pool->remove_shrinker(shrinker);
}

TEST_CASE("a refusal by a limit is nobody's free: what was refused at once stays so") {
  const Messages messages;
  const auto pool = make_pool(kTwoMiB);
  REQUIRE(pool->set_limit("limited", Bytes(16)).ok());
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  void* object = pool->kvmalloc(64);  // Its slab has room for more.
  REQUIRE(pool->kvsize(object) == 64);
  auto pages = fill(*pool, kPage);
  CHECK(pool->kvmalloc(kSize) == nullptr);
  const std::uint64_t reclaims = pool->stats().reclaims;
  for (int i = 0; i < 5; ++i) {
    CHECK(pool->kvmalloc(64, AllocFlags::kNoWarn, "limited") == nullptr);
    CHECK(pool->kvmalloc(kSize, AllocFlags::kNoWarn) == nullptr);
  }
  CHECK(pool->stats().reclaims == reclaims);
  pool->kvfree(object);
  free_all(*pool, pages);
}

TEST_CASE("a pass that fails for a large request leaves smaller ones alone") {
  const Messages messages;
  Full full;
  full.free_one();
  CHECK(full.pool->kvmalloc(2 * kSize) == nullptr);
  CHECK(full.pool->kvmalloc(2 * kSize) == nullptr);  // Now nothing was idle any more.
  const std::uint64_t refusals = full.pool->stats().refusals;
  CHECK(full.pool->kvmalloc(2 * kSize) == nullptr);
  CHECK(full.pool->stats().refusals == refusals + 1);
  void* buffer = full.pool->kvmalloc(kSize);
  CHECK(buffer != nullptr);
  full.buffers.push_back(buffer);
}

TEST_CASE("frees after an exhausted moment make the fast way whole again") {
  const keel_test::Pinned here;  // What is idle lies with the CPU that freed it.
  const Messages messages;
  Full full;
  CHECK(full.pool->kvmalloc(kSize) == nullptr);
  full.free_one();
  full.free_one();
  void* buffer = full.pool->kvmalloc(kSize);
  REQUIRE(buffer != nullptr);
  const std::uint64_t hits = full.pool->stats().cache_hits;
  for (int i = 0; i < 10; ++i) {
    full.pool->kvfree(buffer);
    buffer = full.pool->kvmalloc(kSize);
    REQUIRE(buffer != nullptr);
  }
  CHECK(full.pool->stats().cache_hits >= hits + 9);
  full.buffers.push_back(buffer);
}

TEST_CASE("kNoFs, and kKernel in a NoReclaimScope, never ask a shrinker") {
  const Messages messages;
  for (const bool by_scope : {false, true}) {
    Full full;
    FunctionShrinker shrinker = gives_nothing();
    REQUIRE(full.pool->add_shrinker(shrinker).ok());
    {
      std::optional<NoReclaimScope> scope;
      by_scope ? static_cast<void>(scope.emplace()) : static_cast<void>(0);
      for (const AllocFlags flags : {AllocFlags::kKernel, AllocFlags::kRetryMayfail}) {
        CHECK(full.pool->kvmalloc(kSize, by_scope ? flags : flags | AllocFlags::kNoFs) == nullptr);
        full.free_one();
        full.buffers.push_back(full.pool->kvmalloc(kSize));
      }
    }
    CHECK(full.pool->stats().reclaims >= 2);
    CHECK(shrinker.calls == 0);
    CHECK(full.pool->kvmalloc(kSize) == nullptr);
    CHECK(shrinker.calls == 1);
    full.pool->remove_shrinker(shrinker);
  }
}

#if defined(KEEL_DEBUG)
TEST_CASE(
    "kKernel under a lock of keel's aborts also where memory is at hand, other flags do not") {
  const std::unique_ptr<Pool> pool = make_pool(kTwoMiB);
  Mutex mutex(LockRank::kJournalPush);
  {
    const MutexLock lock(mutex);
    for (const AllocFlags flags : {AllocFlags::kNoFs, AllocFlags::kNoWait}) {
      pool->kvfree(pool->kvmalloc(kSize, flags));
    }
    const NoReclaimScope scope;
    pool->kvfree(pool->kvmalloc(kSize));
  }
  const auto ending = run_in_child([&] {
    const MutexLock lock(mutex);
    (void)pool->kvmalloc(kSize);
  });
  CHECK(ending.aborted_with("an allocation that may reclaim, under a lock"));
}
#endif

TEST_CASE("a NoAllocScope refuses what lies ready as well, and tells of each") {
  BugRecorder bugs;
  const auto pool = make_pool(kTwoMiB);
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  for (const std::size_t size : {std::size_t{64}, kPage, kSize}) {
    pool->kvfree(pool->kvmalloc(size));
    void* refused = nullptr;
    {
      const NoAllocScope scope;
      refused = pool->kvmalloc(size);
    }
    CHECK(refused == nullptr);
    REQUIRE(bugs.count() == 1);
    CHECK(bugs.take().bug == Bug::kAllocationInNoAllocScope);
  }
}

TEST_CASE("kNoWait on a full pool makes no system call, asks nobody and says nothing") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  Full full;
  FunctionShrinker shrinker = gives_nothing();
  REQUIRE(full.pool->add_shrinker(shrinker).ok());
  const std::uint64_t calls = os.all_calls();
  CHECK(full.pool->kvmalloc(kSize, AllocFlags::kNoWait) == nullptr);
  CHECK(full.pool->kvmalloc(kPage, AllocFlags::kNoWait | AllocFlags::kRetryMayfail) == nullptr);
  CHECK(os.all_calls() == calls);
  CHECK(shrinker.calls == 0);
  CHECK(full.pool->stats().reclaims == 0);
  CHECK(Messages::lines().empty());
  full.pool->remove_shrinker(shrinker);
}

TEST_CASE("kNoWarn fails without a word, and is counted") {
  const Messages messages;
  Full full;
  CHECK(full.pool->kvmalloc(kSize, AllocFlags::kNoWarn) == nullptr);
  CHECK(Messages::lines().empty());
  CHECK(full.pool->stats().failures == 1);
}

TEST_CASE("kNoFail on a full pool goes on asking shrinkers until one gives") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  os.use_virtual_time();
  Full full;
  FunctionShrinker shrinker([&](Bytes) {
    if (shrinker.calls < 5) {
      return Bytes(0);
    }
    full.free_one();
    return Bytes(kSize);
  });
  REQUIRE(full.pool->add_shrinker(shrinker).ok());
  void* buffer = full.pool->kvmalloc(kSize, AllocFlags::kNoFail | AllocFlags::kZero);
  REQUIRE(buffer != nullptr);
  CHECK(all_bytes_are(buffer, kSize, 0));
  CHECK(shrinker.calls == 5);
  full.buffers.push_back(buffer);
  full.pool->remove_shrinker(shrinker);
}

TEST_CASE("kZero clears what others left, whichever way the buffer comes") {
  const auto pool = make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  for (const std::size_t size : {std::size_t{100}, kSize, 17 * kPage, 5 * kMiB}) {
    for (int round = 0; round < 4; ++round) {
      std::vector<void*> buffers{pool->kvmalloc(size), pool->kvmalloc(size)};
      for (void* buffer : buffers) {
        std::memset(buffer, 0x77, size);
      }
      free_all(*pool, buffers);
      void* buffer = pool->kvmalloc(size, AllocFlags::kZero);
      REQUIRE(buffer != nullptr);
      const bool whole_pages = size >= kPage;
      CHECK(all_bytes_are(buffer, whole_pages ? (size + kPage - 1) / kPage * kPage : size, 0));
      pool->kvfree(buffer);
      if (round == 2) {
        pool->trim();
      }
    }
  }
}

TEST_CASE("retry_mayfail takes idle buffers apart to stay contiguous, kKernel maps instead") {
  const Messages messages;
  for (const bool retry : {false, true}) {
    const auto pool = make_pool(kTwoMiB);
    auto buffers = fill(*pool, 4 * kPage);
    // Idle buffers and free memory, none of it large enough alone.
    free_all(*pool, buffers);
    const PoolStats before = pool->stats();
    REQUIRE(before.cached > Bytes(0));
    void* buffer =
        pool->kvmalloc(kMiB + kMiB / 2, retry ? AllocFlags::kRetryMayfail : AllocFlags::kKernel);
    REQUIRE(buffer != nullptr);
    CHECK((!retry || pool->is_contiguous(buffer)));
    pool->kvfree(buffer);
  }
}

TEST_CASE("every second of many buffers freed, four times the size fits as often as it can") {
  for (const std::size_t unit : {64U << 10, 256U << 10, 1U << 20}) {
    const auto pool = make_pool({.capacity_bytes = 64 * kMiB, .window_bytes = 256 * kMiB});
    auto small = fill(*pool, unit);
    REQUIRE(small.size() == 64 * kMiB / unit);
    free_every_second(*pool, small);
    auto large = fill(*pool, 4 * unit, "large");
    CHECK(large.size() == small.size() / 4);
    pool->audit();
    free_all(*pool, small);
    free_all(*pool, large);
    pool->audit();
  }
}
