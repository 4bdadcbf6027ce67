// Corners of a Pool's promises, where two of its mechanisms meet.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/mutex.h"
#include "keel/base/os.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using keel_test::BugRecorder;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr AllocFlags kQuiet = AllocFlags::kNoWarn;
constexpr PoolConfig kSmall{.capacity_bytes = 4 * kMiB, .window_bytes = 64 * kMiB};

// Without the pool's thread, whose work would be counted among what a test looks at.
std::unique_ptr<Pool> make(PoolConfig config = kSmall) {
  config.background = false;
  auto pool = Pool::create(config);
  REQUIRE(pool.ok());
  return std::move(*pool);
}

bool all_zero(const void* buffer, std::size_t bytes) {
  const auto* at = static_cast<const char*>(buffer);
  return bytes == 0 || (*at == 0 && std::memcmp(at, at + 1, bytes - 1) == 0);
}

}  // namespace

TEST_CASE("a zeroed buffer of a hardened pool keeps its pattern behind the size asked for") {
  PoolConfig config = kSmall;
  config.hardened = true;
  const auto pool = make(config);
  BugRecorder bugs;
  auto* buffer = static_cast<char*>(pool->kvmalloc(5000, AllocFlags::kZero));
  REQUIRE(buffer != nullptr);
  CHECK(all_zero(buffer, 5000));
  pool->kvfree(buffer);
  CHECK(bugs.count() == 0);
  CHECK(pool->stats().live == Bytes(0));
}

namespace {

// Whole buffers that it gives back when it is asked.
class Hoard final : public Shrinker {
 public:
  explicit Hoard(Pool& pool) : pool_(pool) { REQUIRE(pool.add_shrinker(*this).ok()); }
  ~Hoard() override { pool_.remove_shrinker(*this); }
  Hoard(const Hoard&) = delete;
  Hoard& operator=(const Hoard&) = delete;
  void put(void* page) { pages_.push_back(page); }

  [[nodiscard]] const char* name() const override { return "hoard"; }
  [[nodiscard]] Bytes count() const override { return Bytes(pages_.size() * kPageBytes); }
  Bytes scan(Bytes wanted) override {
    Bytes given{};
    for (; !pages_.empty() && given < wanted; pages_.pop_back()) {
      pool_.kvfree(pages_.back());
      given += Bytes(kPageBytes);
    }
    return given;
  }

 private:
  Pool& pool_;
  std::vector<void*> pages_;
};

}  // namespace

TEST_CASE("a request that may not run shrinkers fails, and those that may still ask them") {
  const auto pool = make();
  Hoard hoard(*pool);
  while (void* page = pool->kvmalloc(kPageBytes, kQuiet | AllocFlags::kNoFs)) {
    hoard.put(page);
  }
  const auto before = pool->stats().refusals;
  CHECK(pool->kvmalloc(kPageBytes, kQuiet | AllocFlags::kNoFs) == nullptr);
  CHECK(pool->stats().refusals == before + 1);  // At once: nothing was freed in between.
  CHECK(pool->kvmalloc(kPageBytes, kQuiet) != nullptr);
}

namespace {

// Takes all memory of the pool in objects of `bytes`; gives those that are kmalloc's.
std::vector<void*> fill_with_small(Pool& pool, std::size_t bytes) {
  std::vector<void*> objects;
  while (void* object = pool.kvmalloc(bytes, kQuiet)) {
    if (pool.kvsize(object) < kPageBytes) {  // Else it had to take a page.
      objects.push_back(object);
    }
  }
  return objects;
}

}  // namespace

TEST_CASE("memory that small objects gave back serves pages, also after refusals") {
  const auto pool = make();
  const std::vector<void*> objects = fill_with_small(*pool, 64);
  CHECK(pool->kvmalloc(kPageBytes, kQuiet) == nullptr);
  for (void* object : objects) {
    pool->kvfree(object);
  }
  CHECK(pool->kvmalloc(kPageBytes, kQuiet) != nullptr);
}

TEST_CASE("a limit holds for small objects of an owner that came when all ids were taken") {
  static std::array<char, 4096> names{};
  const auto pool = make();
  for (char& name : names) {
    pool->kvfree(pool->kvmalloc(64, kQuiet, &name));
  }
  constexpr const char* kOwner = "late";
  REQUIRE(pool->set_limit(kOwner, Bytes(64 * kPageBytes)).ok());
  for (int i = 0; i < 10'000; ++i) {
    void* object = pool->kvmalloc(64, kQuiet, kOwner);
    REQUIRE(object != nullptr);
    pool->kvfree(object);
  }
}

TEST_CASE("the pool's thread holds none of its locks while it asks shrinkers") {
  // As one that forces a log would; and audit() takes what a round of upkeep holds.
  struct Forcing final : Shrinker {
    explicit Forcing(Pool& owner) : pool(owner) {}
    [[nodiscard]] const char* name() const override { return "forcing"; }
    [[nodiscard]] Bytes count() const override { return Bytes(kPageBytes); }
    Bytes scan(Bytes /*wanted*/) override {
      MutexLock guard(lock);
      ++calls;
      pool.upkeep();
      return Bytes(0);
    }
    Pool& pool;
    Mutex lock{LockRank::kJournalContext};
    int calls = 0;
  };
  const auto pool = make();
  Forcing shrinker(*pool);
  while (pool->kvmalloc(kPageBytes, kQuiet | AllocFlags::kNoFs) != nullptr) {
  }
  REQUIRE(pool->add_shrinker(shrinker).ok());
  pool->upkeep();
  CHECK(shrinker.calls == 1);
  pool->remove_shrinker(shrinker);
}

namespace {

// A system that has no memory, and a buffer becomes idle whenever it is asked for some.
struct BusyOs : public Os {
  int madvise(void* address, std::size_t bytes, int advice) override {
    if (pool == nullptr || advice != MADV_POPULATE_WRITE) {
      return Os::madvise(address, bytes, advice);
    }
    ++refused;
    if (!buffers.empty()) {
      pool->kvfree(buffers.back());
      buffers.pop_back();
    }
    return -ENOMEM;
  }
  Pool* pool = nullptr;
  std::vector<void*> buffers;
  int refused = 0;
};

}  // namespace

TEST_CASE("reserve() gives up after a few drains, though a buffer becomes idle before each") {
  BusyOs os;
  const ScopedOs scope(os);
  PoolConfig config = kSmall;
  config.chunk_bytes = kMiB;
  config.initial_bytes = kMiB;
  config.huge_pages = false;
  const auto pool = make(config);
  for (int i = 0; i < 100; ++i) {
    os.buffers.push_back(pool->kvmalloc(kPageBytes));
    REQUIRE(os.buffers.back() != nullptr);
  }
  os.pool = pool.get();
  CHECK(pool->reserve(Bytes(2 * kMiB)).error().code == Errc::kNoMemory);
  os.pool = nullptr;
  CHECK(os.refused > 4);    // So it did drain.
  CHECK(os.refused <= 16);  // Of two passes of so many drains: a few each.
  for (void* buffer : os.buffers) {
    pool->kvfree(buffer);
  }
  pool->audit();
}

TEST_CASE("reserve takes slabs apart that hold no object any more") {
  const auto pool = make();
  std::vector<void*> objects;
  while (void* object = pool->kvmalloc(512, kQuiet | AllocFlags::kNoFs)) {
    objects.push_back(object);
  }
  const Bytes half(pool->stats().capacity.value() / 2);
  CHECK_FALSE(pool->reserve(half).ok());
  for (void* object : objects) {
    pool->kvfree(object);
  }
  CHECK(pool->reserve(half).ok());
}

TEST_CASE("a small object that was made smaller can be freed with its size, and is aligned to it") {
  const auto pool = make();
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  BugRecorder bugs;
  for (int i = 0; i < 16; ++i) {
    void* object = pool->kvrealloc(pool->kvmalloc(80), 64);
    CHECK(reinterpret_cast<std::uintptr_t>(object) % 64 == 0);
    object = pool->kvrealloc(object, 40);
    pool->kvfree_sized(object, 40);
  }
  CHECK(bugs.count() == 0);
  CHECK(pool->stats().small == Bytes(0));
}

TEST_CASE("a small object that is zeroed whenever it grows never shows what was there before") {
  const auto pool = make();
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  std::vector<void*> used;
  for (int i = 0; i < 256; ++i) {
    used.push_back(pool->kvmalloc(64));
    std::memset(used.back(), 0xee, 64);
  }
  for (void* object : used) {
    pool->kvfree(object);
  }
  for (int i = 0; i < 256; ++i) {
    void* object = pool->kvmalloc(50, AllocFlags::kZero);
    object = pool->kvrealloc(object, 60, AllocFlags::kZero);
    CHECK(all_zero(object, 60));
  }
}

TEST_CASE("who may not fail and waits for a small object gets one that was freed among others") {
  const auto pool = make();
  const std::vector<void*> objects = fill_with_small(*pool, 64);
  std::atomic<bool> got{false};
  std::thread waiter([&] {
    const void* object = pool->kvmalloc(60, AllocFlags::kNoFail | AllocFlags::kZero);
    got = all_zero(object, 60);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (std::size_t i = 0; i < objects.size(); i += 2) {
    pool->kvfree(objects[i]);  // No slab gets empty.
  }
  waiter.join();
  CHECK(got);
}

TEST_CASE("no buffer is larger than its record can say") {
  const auto pool = make({.capacity_bytes = std::size_t{16} << 30,
                          .window_bytes = std::size_t{32} << 30,
                          .kvmalloc_max_bytes = std::size_t{8} << 30});
  CHECK(pool->kvmalloc(std::size_t{4} << 30, kQuiet) == nullptr);
  CHECK(pool->stats().populated == Bytes(0));  // Refused at once.
}

TEST_CASE("a pool of a size of its own choice is no larger than a file may be") {
  const auto ending = keel_test::run_in_child([] {
    struct rlimit before {};
    (void)::getrlimit(RLIMIT_FSIZE, &before);
    struct rlimit limit {
      (std::uint64_t{64} << 20) + 5000, before.rlim_max
    };
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) {
      ::_exit(2);
    }
    const auto made = Pool::create({.background = false});
    if (!made.ok() || (*made)->config().capacity_bytes != std::size_t{64} << 20) {
      ::_exit(3);
    }
    limit.rlim_cur = 4096;
    const bool limited = ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
    const auto refused = Pool::create({.background = false});
    (void)::setrlimit(RLIMIT_FSIZE, &before);  // A child may write its coverage.
    ::_exit(limited && !refused.ok() && refused.error().sys_errno == EFBIG ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a pool dies in children forked while other threads are at it") {
  auto pool = make({.capacity_bytes = 64 * kMiB});
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    threads.emplace_back([&, random = seed]() mutable {
      std::array<void*, 64> held{};
      while (!stop) {
        random = random * 1664525 + 1013904223;
        void*& slot = held[random >> 8 & 63];
        pool->kvfree(slot);
        slot = pool->kvmalloc(1 + (random >> 16) % 9000, kQuiet);
      }
    });
  }
  for (int i = 0; i < 64; ++i) {
    const auto ending = keel_test::run_in_child([&] {
      pool.reset();
      ::_exit(0);
    });
    CHECK(ending.exit_code == 0);
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_CASE("kvrealloc takes along all that kvsize said could be used") {
  const auto pool = make();
  constexpr std::size_t kAsked = 70'000;  // a class of 72 KiB
  auto* buffer = static_cast<char*>(pool->kvmalloc(kAsked));
  REQUIRE(buffer != nullptr);
  const std::size_t usable = pool->kvsize(buffer);
  REQUIRE(usable > kAsked);
  std::memset(buffer, 'u', usable);
  const auto* moved = static_cast<const char*>(pool->kvrealloc(buffer, 3 * kAsked));
  REQUIRE(moved != nullptr);
  CHECK(std::string(moved, usable) == std::string(usable, 'u'));
}

TEST_CASE("memory that small objects have left goes back without anybody's asking") {
  keel_test::FaultOs os;
  os.use_virtual_time();
  ScopedOs scope(os);
  const auto pool = make({.capacity_bytes = 64 * kMiB});
  std::vector<void*> objects;
  for (int i = 0; i < 32'000; ++i) {
    objects.push_back(pool->kvmalloc(1024));
  }
  for (void* object : objects) {
    pool->kvfree(object);
  }
  REQUIRE(pool->stats().populated >= Bytes(32 * kMiB));
  for (int round = 0; round < 100; ++round) {
    pool->upkeep();
    os.sleep_ns(100'000'000);  // only moves the clock
  }
  CHECK(pool->stats().populated <= Bytes(8 * kMiB));
}

TEST_CASE("a request out of another pool's shrinker speaks only for its like") {
  struct Crossing final : Shrinker {
    explicit Crossing(Pool& pool) : other(pool) {}
    [[nodiscard]] const char* name() const override { return "crossing"; }
    [[nodiscard]] Bytes count() const override { return Bytes(kPageBytes); }
    Bytes scan(Bytes /*wanted*/) override {
      CHECK(other.kvmalloc(kPageBytes, kQuiet) == nullptr);
      return Bytes(0);
    }
    Pool& other;
  };
  const auto pool = make();
  const auto other = make();
  Hoard hoard(*other);
  while (void* page = other->kvmalloc(kPageBytes, kQuiet | AllocFlags::kNoFs)) {
    hoard.put(page);
  }
  Crossing shrinker(*other);
  REQUIRE(pool->add_shrinker(shrinker).ok());
  while (pool->kvmalloc(kPageBytes, kQuiet) != nullptr) {
  }
  pool->remove_shrinker(shrinker);
  CHECK(other->kvmalloc(kPageBytes, kQuiet) != nullptr);
}

TEST_CASE("shrinkers that have something only later are asked by the pool's thread") {
  struct Later final : Shrinker {
    explicit Later(Pool& owner) : pool(owner) {}
    [[nodiscard]] const char* name() const override { return "later"; }
    [[nodiscard]] Bytes count() const override {
      return ready ? Bytes(kPageBytes) : Bytes(0);  // One page, the last.
    }
    Bytes scan(Bytes /*wanted*/) override {
      ready = false;
      pool.kvfree(page);
      return Bytes(kPageBytes);
    }
    Pool& pool;
    void* page = nullptr;
    std::atomic<bool> ready{false};
  };
  auto pool = Pool::create(kSmall);  // With the pool's thread.
  REQUIRE(pool.ok());
  Later shrinker(**pool);
  REQUIRE((*pool)->add_shrinker(shrinker).ok());
  while (void* page = (*pool)->kvmalloc(kPageBytes, kQuiet)) {
    shrinker.page = page;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  shrinker.ready = true;
  // However late it runs: CTest's limit is the only one.
  while ((*pool)->kvmalloc(kPageBytes, kQuiet) == nullptr) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  (*pool)->remove_shrinker(shrinker);
}
