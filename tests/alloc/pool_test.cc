#include "keel/alloc/pool.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cpu_pin.h"
#include "keel/base/scopes.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using keel_test::BugRecorder;
using keel_test::FaultOs;
using keel_test::OsCall;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr PoolConfig kSmall{
    .capacity_bytes = 2 * kMiB, .chunk_bytes = kMiB, .window_bytes = 16 * kMiB};

// Without the pool's thread, whose work would be counted among what a test looks at.
std::unique_ptr<Pool> make(PoolConfig config = kSmall) {
  config.background = false;
  auto pool = Pool::create(config);
  REQUIRE(pool.ok());
  return std::move(*pool);
}

// Keeps what the message hook gets while it lives.
class Messages {
 public:
  Messages() : before_(set_message_hook(keep)) { lines().clear(); }
  ~Messages() { set_message_hook(before_); }
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  static std::vector<std::string>& lines() {
    static std::vector<std::string> kept;
    return kept;
  }

 private:
  static void keep(const char* line) { lines().emplace_back(line); }
  MessageHook before_;
};

bool contains(const std::string& line, const char* text) {
  return line.find(text) != std::string::npos;
}

bool all_bytes_are(const void* buffer, std::size_t bytes, unsigned char value) {
  const auto* at = static_cast<const unsigned char*>(buffer);
  return std::all_of(at, at + bytes, [value](unsigned char byte) { return byte == value; });
}

// Takes all memory of the pool in single pages and frees every second one, which are then free but
// nowhere contiguous. Returns the others.
std::vector<void*> fragment(Pool& pool) {
  std::vector<void*> kept;
  std::vector<void*> given_back;
  while (void* page = pool.kvmalloc(kPageBytes, AllocFlags::kNoWarn, "fragment")) {
    kept.push_back(page);
  }
  std::sort(kept.begin(), kept.end());
  for (std::size_t i = 0; i < kept.size(); i += 2) {
    given_back.push_back(kept[i]);
    kept[i] = nullptr;
  }
  std::erase(kept, nullptr);
  for (void* page : given_back) {
    pool.kvfree(page);
  }
  return kept;
}

void free_all(Pool& pool, const std::vector<void*>& buffers) {
  for (void* buffer : buffers) {
    pool.kvfree(buffer);
  }
}

// What of a pool must not change when an allocation fails.
void check_same_but_populated(const PoolStats& before, const PoolStats& after) {
  CHECK(after.live == before.live);
  CHECK(after.mappings == before.mappings);
  CHECK(after.lazy == before.lazy);
  CHECK(after.free + after.cached == after.populated - after.live);
  CHECK(after.contiguous_allocations == before.contiguous_allocations);
  CHECK(after.vmalloc_allocations == before.vmalloc_allocations);
}

}  // namespace

TEST_CASE("a buffer is contiguous where it can be, and of whole pages") {
  const auto pool = make();
  void* buffer = pool->kvmalloc(5000, AllocFlags::kKernel, "five thousand");
  REQUIRE(buffer != nullptr);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer) % kPageBytes == 0);
  CHECK(pool->is_contiguous(buffer));
  CHECK(pool->kvsize(buffer) == 8192);
  CHECK(pool->stats().live == Bytes(8192));
  CHECK(pool->stats().contiguous_allocations == 1);
  CHECK(pool->stats().inline_growths == 1);
  std::memset(buffer, 1, 8192);
  pool->kvfree(buffer);
  pool->kvfree(nullptr);
  CHECK(pool->kvsize(nullptr) == 0);
  CHECK(pool->stats().live == Bytes(0));
  CHECK(pool->stats().frees >= 1);
  CHECK(pool->stats().frees <= 2);  // A restarted sequence counts twice.
  pool->audit();
}

TEST_CASE("above 4 MiB a buffer is mapped, with a guard page behind") {
  const auto pool = make({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  void* buffer = pool->kvmalloc(4 * kMiB + 1);
  REQUIRE(buffer != nullptr);
  CHECK(!pool->is_contiguous(buffer));
  CHECK(pool->kvsize(buffer) == 4 * kMiB + kPageBytes);
  std::memset(buffer, 0xA5, pool->kvsize(buffer));
  void* other = pool->kvmalloc(4 * kMiB + 1);
  REQUIRE(other != nullptr);
  std::memset(other, 0x5A, pool->kvsize(other));
  CHECK(all_bytes_are(buffer, 4 * kMiB + 1, 0xA5));
  CHECK(pool->stats().vmalloc_allocations == 2);
  pool->kvfree(buffer);
  CHECK(pool->stats().live == Bytes(4 * kMiB + kPageBytes));
  CHECK(pool->stats().lazy == Bytes(4 * kMiB + 2 * kPageBytes));
  pool->purge();
  CHECK(pool->stats().lazy == Bytes(0));
  pool->kvfree(other);
  pool->audit();
}

TEST_CASE("scattered free pages serve a large request at the cap") {
  const auto pool = make();
  const auto held = fragment(*pool);
  CHECK(held.size() == 256);
  void* buffer = pool->kvmalloc(kMiB);
  REQUIRE(buffer != nullptr);
  CHECK(!pool->is_contiguous(buffer));
  CHECK(pool->stats().free == Bytes(0));
  std::memset(buffer, 3, kMiB);
  CHECK(all_bytes_are(buffer, kMiB, 3));
  pool->audit();
  pool->kvfree(buffer);
  free_all(*pool, held);
  CHECK(pool->stats().live == Bytes(0));
  pool->audit();
}

TEST_CASE("the pool never passes its capacity, and a refused request changes nothing") {
  Messages messages;
  const auto pool = make();
  std::vector<void*> buffers;
  while (void* buffer = pool->kvmalloc(100'000)) {
    buffers.push_back(buffer);
    CHECK(pool->stats().populated <= pool->stats().capacity);
  }
  CHECK(pool->stats().failures == 1);
  CHECK(pool->stats().capacity - pool->stats().live < Bytes(102'400));
  REQUIRE(messages.lines().size() == 1);
  CHECK(contains(messages.lines()[0], "allocation failed"));
  pool->audit();
  free_all(*pool, buffers);
  CHECK(pool->stats().live == Bytes(0));
  CHECK(pool->stats().free + pool->stats().cached == pool->stats().capacity);
  pool->audit();
}

TEST_CASE("sizes that can never be had get nullptr at once, kNoFail or not") {
  Messages messages;
  const auto pool = make();
  for (const AllocFlags flags :
       {AllocFlags::kKernel, AllocFlags::kNoFail, AllocFlags::kNoFail | AllocFlags::kNoWarn}) {
    CHECK(pool->kvmalloc(0, flags) == nullptr);
    CHECK(pool->kvmalloc(2 * kMiB + 1, flags) == nullptr);
    CHECK(pool->kvmalloc(SIZE_MAX, flags) == nullptr);
    CHECK(pool->kvmalloc(SIZE_MAX - 4094, flags) == nullptr);
  }
  PoolConfig config = kSmall;
  config.kvmalloc_max_bytes = 8192;
  CHECK(make(config)->kvmalloc(8193, AllocFlags::kNoFail) == nullptr);
  // Above a limit nothing that lies ready is given either, though it be large enough: a page, an
  // idle buffer of the class, an object.
  for (const std::size_t limit : {std::size_t{100}, std::size_t{5000}, 17 * kPageBytes}) {
    config.kvmalloc_max_bytes = limit;
    const auto limited = make(config);
    REQUIRE(limited->reserve(Bytes(kMiB)).ok());  // else there are no objects
    void* most = limited->kvmalloc(limit);
    REQUIRE(most != nullptr);
    CHECK(limited->kvrealloc(most, limit + 1) == nullptr);
    limited->kvfree(most);
    CHECK(limited->kvmalloc(limit + 1, AllocFlags::kNoFail) == nullptr);
    CHECK(limited->kvmalloc(limit + 1, AllocFlags::kNoWait) == nullptr);
    CHECK(limited->kvmalloc(limit) != nullptr);
  }
  config = {.capacity_bytes = 16 * kMiB, .window_bytes = 6 * kMiB};
  CHECK(make(config)->kvmalloc(6 * kMiB, AllocFlags::kNoFail) == nullptr);  // no guard page left
  CHECK(make(config)->kvmalloc(6 * kMiB - kPageBytes) != nullptr);
  CHECK(pool->stats().populated == Bytes(0));
}

TEST_CASE("a request above 4 MiB grows the store by no more than the free lists lack") {
  const auto pool =
      make({.capacity_bytes = 32 * kMiB, .chunk_bytes = 4 * kMiB, .initial_bytes = 8 * kMiB});
  void* buffer = pool->kvmalloc(5 * kMiB);
  REQUIRE(buffer != nullptr);
  CHECK(pool->stats().inline_growths == 0);
  void* other = pool->kvmalloc(6 * kMiB);
  REQUIRE(other != nullptr);
  CHECK(pool->stats().inline_growths == 1);
  pool->kvfree(buffer);
  pool->kvfree(other);
}

TEST_CASE("growth populates the frames' records too, so that nothing faults later") {
  FaultOs os;
  ScopedOs scope(os);
  PoolConfig config = kSmall;
  config.huge_pages = false;
  const auto pool = make(config);
  const std::uint64_t before = os.calls(OsCall::kMadvise);
  pool->kvfree(pool->kvmalloc(kPageBytes));
  CHECK(os.calls(OsCall::kMadvise) - before == 2);
}

namespace {

// Keeps whoever populates first in the kernel until `threads` have announced that they allocate.
class SlowGrowthOs : public Os {
 public:
  explicit SlowGrowthOs(int threads) : threads_(threads) {}
  void announce() { ++announced_; }
  int madvise(void* address, std::size_t bytes, int advice) override {
    if (advice == MADV_POPULATE_WRITE) {
      while (announced_ < threads_) {
        std::this_thread::yield();
      }
      // They are on their way from the announcement to the lock. Should one come late, the test
      // sees less than it could, and nothing that is not there.
      for (int i = 0; i < 1'000; ++i) {
        std::this_thread::yield();
      }
    }
    return Os::madvise(address, bytes, advice);
  }

 private:
  const int threads_;
  std::atomic<int> announced_{0};
};

}  // namespace

TEST_CASE("many threads that find the pool empty populate one chunk, not one each") {
  constexpr int kThreads = 4;
  SlowGrowthOs os(kThreads);
  ScopedOs scope(os);
  const auto pool = make({.capacity_bytes = 16 * kMiB, .chunk_bytes = kMiB});
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      os.announce();
      CHECK(pool->kvmalloc(kPageBytes) != nullptr);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(pool->stats().inline_growths == 1);
}

TEST_CASE("kZero clears a buffer that was used before, in both tiers") {
  const auto pool = make({.capacity_bytes = 8 * kMiB});
  for (const std::size_t size : {std::size_t{10'000}, 5 * kMiB}) {
    for (int round = 0; round < 2; ++round) {
      void* buffer = pool->kvmalloc(size, AllocFlags::kZero);
      REQUIRE(buffer != nullptr);
      CHECK(all_bytes_are(buffer, pool->kvsize(buffer), 0));
      std::memset(buffer, 0xFF, pool->kvsize(buffer));
      pool->kvfree(buffer);
    }
  }
}

TEST_CASE("kNoWait makes no system call, whether it gets memory or not") {
  FaultOs os;
  ScopedOs scope(os);
  PoolConfig config = kSmall;
  config.initial_bytes = kMiB;
  const auto pool = make(config);
  CHECK(pool->stats().populated == Bytes(kMiB));
  const std::uint64_t before = os.all_calls();
  std::vector<void*> buffers;
  while (void* buffer = pool->kvmalloc(100'000, AllocFlags::kNoWait)) {
    CHECK(pool->is_contiguous(buffer));
    buffers.push_back(buffer);
  }
  CHECK(!buffers.empty());
  CHECK(pool->kvmalloc(5 * kMiB, AllocFlags::kNoWait) == nullptr);
  free_all(*pool, buffers);
  CHECK(os.all_calls() == before);
  CHECK(pool->stats().inline_growths == 0);
  pool->audit();
}

TEST_CASE("freeing makes no system call in either tier") {
  FaultOs os;
  ScopedOs scope(os);
  const auto pool = make({.capacity_bytes = 8 * kMiB});
  void* contiguous = pool->kvmalloc(kMiB);
  void* mapped = pool->kvmalloc(5 * kMiB);
  REQUIRE(mapped != nullptr);
  const std::uint64_t before = os.all_calls();
  pool->kvfree(contiguous);
  pool->kvfree(mapped);
  CHECK(os.all_calls() == before);
}

TEST_CASE("kNoFail waits until there is memory and says once a second who holds it") {
  Messages messages;
  FaultOs os;
  ScopedOs scope(os);
  const auto pool = make();
  void* hog = pool->kvmalloc(2 * kMiB - kPageBytes, AllocFlags::kKernel, "hog");
  void* page = pool->kvmalloc(kPageBytes, AllocFlags::kKernel, "page");
  REQUIRE(page != nullptr);
  os.use_virtual_time([&] {
    if (os.monotonic_ns() > 3'500'000'000 && hog != nullptr) {
      pool->kvfree(hog);
      hog = nullptr;
    }
  });
  // kNoWait beside it is ignored.
  void* buffer = pool->kvmalloc(kMiB, AllocFlags::kNoFail | AllocFlags::kNoWait, "log vector");
  REQUIRE(buffer != nullptr);
  CHECK(pool->stats().nofail_warnings == 3);
  REQUIRE(messages.lines().size() == 3);
  const std::string& line = messages.lines()[0];
  CHECK(contains(line, "possible memory allocation deadlock"));
  CHECK(contains(line, "size 1048576"));
  CHECK(contains(line, "flags 0x4"));
  CHECK(contains(line, "owner 'log vector'"));
  CHECK(contains(line, "held by 'hog' 2093056, 'page' 4096"));
  CHECK(pool->stats().failures == 0);
  pool->kvfree(buffer);
  pool->kvfree(page);
  pool->audit();
}

TEST_CASE("messages about failures are limited in rate, and kNoWarn has none") {
  Messages messages;
  FaultOs os;
  ScopedOs scope(os);
  os.use_virtual_time();
  const auto pool = make();
  const std::size_t too_large = 3 * kMiB;
  CHECK(pool->kvmalloc(too_large, AllocFlags::kNoWarn) == nullptr);
  CHECK(pool->kvmalloc(too_large, AllocFlags::kNoWait) == nullptr);
  CHECK(messages.lines().empty());
  CHECK(pool->kvmalloc(too_large) == nullptr);
  CHECK(pool->kvmalloc(too_large) == nullptr);
  CHECK(messages.lines().size() == 1);
  os.sleep_ns(1'000'000'000);
  CHECK(pool->kvmalloc(too_large) == nullptr);
  CHECK(messages.lines().size() == 2);
  CHECK(contains(messages.lines()[1], "held by nobody"));
}

TEST_CASE("a message is cut where its line is full") {
  Messages messages;
  const auto pool = make();
  const std::string owner(2000, 'o');
  CHECK(pool->kvmalloc(3 * kMiB, AllocFlags::kKernel, owner.c_str()) == nullptr);
  REQUIRE(messages.lines().size() == 1);
  const std::string& line = messages.lines()[0];
  CHECK(contains(line, "memory allocation failed: size 3145728"));
  CHECK(line.size() < 800);
  CHECK(line.size() > 700);
  CHECK(line.back() == 'o');
}

TEST_CASE("without a hook messages go to the standard error") {
  const auto ending = keel_test::run_in_child([] {
    const auto pool = make();
    (void)set_message_hook(nullptr);
    (void)pool->kvmalloc(3 * kMiB, AllocFlags::kKernel, "told");
    ::_exit(0);
  });
  CHECK(ending.exit_code == 0);
  CHECK(contains(ending.errors, "keel: memory allocation failed"));
  CHECK(contains(ending.errors, "'told'"));
}

TEST_CASE("a NoReclaimScope is seen by the allocation") {
  Messages messages;
  const auto pool = make();
  const NoReclaimScope scope;
  CHECK(pool->kvmalloc(3 * kMiB) == nullptr);
  REQUIRE(messages.lines().size() == 1);
  CHECK(contains(messages.lines()[0], "flags 0x1"));
}

TEST_CASE("an allocation in a NoAllocScope is a reported bug") {
  BugRecorder bugs;
  const auto pool = make();
  void* buffer = nullptr;
  {
    const NoAllocScope scope;
    buffer = pool->kvmalloc(kPageBytes);
    pool->kvfree(buffer);  // freeing is allowed
  }
  REQUIRE(bugs.count() == 1);
  const BugReport report = bugs.take();
  CHECK(report.bug == Bug::kAllocationInNoAllocScope);
  CHECK(report.call == doctest::String("kvmalloc"));
}

TEST_CASE("each wrong free is told apart and changes nothing") {
  BugRecorder bugs;
  const auto pool =
      make({.capacity_bytes = 16 * kMiB, .chunk_bytes = 8 * kMiB, .window_bytes = 64 * kMiB});
  auto* contiguous = static_cast<std::byte*>(pool->kvmalloc(9000, AllocFlags::kKernel, "item"));
  auto* mapped = static_cast<std::byte*>(pool->kvmalloc(5 * kMiB, AllocFlags::kKernel, "big"));
  REQUIRE(mapped != nullptr);
  const auto expect = [&](void* address, Bug bug, const void* start, std::size_t bytes,
                          const char* owner) {
    for (const bool freeing : {true, false}) {
      const PoolStats before = pool->stats();
      freeing ? pool->kvfree(address) : static_cast<void>(pool->kvsize(address));
      REQUIRE(bugs.count() == 1);
      const BugReport report = bugs.take();
      CHECK(report.bug == bug);
      CHECK(report.area_start == reinterpret_cast<std::uintptr_t>(start));
      CHECK(report.area_bytes == bytes);
      CHECK(report.owner == doctest::String(owner));
      CHECK(report.call == doctest::String(freeing ? "kvfree" : "kvsize"));
      check_same_but_populated(before, pool->stats());
      CHECK(pool->stats().frees == before.frees);
      pool->audit();
    }
  };
  int on_stack = 0;
  expect(&on_stack, Bug::kUnknownAddress, nullptr, 0, "");
  expect(contiguous + 100, Bug::kInteriorPointer, contiguous, 12288, "item");
  expect(contiguous + kPageBytes, Bug::kInteriorPointer, contiguous, 12288, "item");
  expect(contiguous + 12 * kMiB, Bug::kUnknownAddress, nullptr, 0, "");  // not populated
  expect(contiguous + 7 * kMiB, Bug::kUnknownAddress, nullptr, 0, "");   // free, never used
  expect(mapped + kPageBytes, Bug::kInteriorPointer, mapped, 5 * kMiB, "big");
  CHECK(!pool->is_contiguous(contiguous + kPageBytes));
  CHECK(!pool->is_contiguous(mapped));
  pool->kvfree(contiguous);
  pool->kvfree(mapped);
  expect(contiguous, Bug::kDoubleFree, contiguous, 12288, "item");
  expect(mapped, Bug::kDoubleFree, mapped, 5 * kMiB, "big");
  pool->purge();
  expect(mapped, Bug::kDoubleFree, mapped, 5 * kMiB, "big");
}

TEST_CASE("the direct-map address of a mapped buffer's frame is told apart") {
  BugRecorder bugs;
  const auto pool = make();
  const auto held = fragment(*pool);
  void* buffer = pool->kvmalloc(kMiB, AllocFlags::kKernel, "scattered");
  REQUIRE(buffer != nullptr);
  // Every page that `fragment` does not hold is the buffer's.
  pool->kvfree(static_cast<std::byte*>(held[0]) - kPageBytes);
  REQUIRE(bugs.count() == 1);
  const BugReport report = bugs.take();
  CHECK(report.bug == Bug::kDirectMapAddress);
  CHECK(report.owner == doctest::String("scattered"));
  // The same of an idle one.
  pool->kvfree(buffer);
  for (void* page : held) {
    pool->kvfree(static_cast<std::byte*>(page) - kPageBytes);
    REQUIRE(bugs.count() == 1);
    CHECK(bugs.take().bug == Bug::kDirectMapAddress);
  }
  free_all(*pool, held);
  CHECK(bugs.count() == 0);
}

TEST_CASE("trim gives back free chunks, and not one that is in use") {
  const auto pool =
      make({.capacity_bytes = 8 * kMiB, .chunk_bytes = kMiB, .window_bytes = 64 * kMiB});
  void* kept = pool->kvmalloc(kPageBytes);
  void* mapped = pool->kvmalloc(6 * kMiB);
  REQUIRE(mapped != nullptr);
  std::memset(kept, 9, 4096);
  pool->kvfree(mapped);
  CHECK(pool->stats().lazy != Bytes(0));
  CHECK(pool->stats().populated == Bytes(7 * kMiB));
  CHECK(pool->trim() == Bytes(6 * kMiB));
  CHECK(pool->stats().populated == Bytes(kMiB));
  CHECK(pool->stats().lazy == Bytes(0));
  CHECK(all_bytes_are(kept, 4096, 9));
  pool->audit();
  mapped = pool->kvmalloc(6 * kMiB);
  REQUIRE(mapped != nullptr);
  CHECK(all_bytes_are(mapped, 4096, 0));
  pool->kvfree(mapped);
  pool->kvfree(kept);
  pool->audit();
}

TEST_CASE("trim keeps a chunk whose aliases cannot be purged or whose memory is not taken back") {
  FaultOs os;
  ScopedOs scope(os);
  const auto pool =
      make({.capacity_bytes = 6 * kMiB, .chunk_bytes = 2 * kMiB, .window_bytes = 64 * kMiB});
  for (const OsCall failing : {OsCall::kMmap, OsCall::kFallocate}) {
    void* buffer = pool->kvmalloc(5 * kMiB);
    REQUIRE(buffer != nullptr);
    pool->kvfree(buffer);
    os.fail_from(1, keel_test::mask_of(failing), EIO);
    CHECK(pool->trim() == Bytes(0));
    CHECK(os.fired());
    CHECK(pool->stats().free == Bytes(6 * kMiB));
    pool->audit();
    os.disarm();
  }
  CHECK(pool->trim() == Bytes(6 * kMiB));
  pool->audit();
}

TEST_CASE("at the mapping budget requests still get contiguous memory, or a refusal") {
  const keel_test::Pinned here;  // Idle buffers lie on the stack of the CPU that freed them.
  Messages messages;
  PoolConfig config = kSmall;
  config.window_bytes = 4 * kMiB;  // one shard, also with many CPUs: each keeps some of the budget
  config.max_mappings = 64;
  const auto pool = make(config);
  const auto held = fragment(*pool);
  CHECK(pool->kvmalloc(kMiB) == nullptr);  // 256 single pages
  CHECK(pool->stats().mappings == 1);
  pool->audit();
  void* page = pool->kvmalloc(kPageBytes);
  CHECK(page != nullptr);
  void* some = pool->kvmalloc(60 * kPageBytes);
  CHECK(some != nullptr);
  pool->kvfree(some);
  some = pool->kvmalloc(60 * kPageBytes);  // still mapped
  CHECK(some != nullptr);
  CHECK(pool->stats().vmalloc_allocations == 1);
  pool->kvfree(some);
  // Fits only once the idle buffer has gone and a purge was made, which map() does itself.
  some = pool->kvmalloc(56 * kPageBytes);
  CHECK(some != nullptr);
  CHECK(pool->stats().purges == 1);
  pool->kvfree(some);
  pool->kvfree(page);
  free_all(*pool, held);
  pool->audit();
}

TEST_CASE("creating a pool survives every failing call and leaks nothing") {
  FaultOs os;
  ScopedOs scope(os);
  PoolConfig config = kSmall;
  config.initial_bytes = kMiB;
  for (std::uint64_t n = 1;; ++n) {
    os.fail_nth(n);
    (void)Pool::create(config).ok();
    CHECK(os.holds_nothing());
    if (!os.fired()) {
      break;
    }
  }
  os.disarm();
  CHECK(Pool::create({.capacity_bytes = 1000}).error().code == Errc::kInvalidArgument);
  CHECK(Pool::create({.capacity_bytes = kMiB, .chunk_bytes = 3000}).error().code ==
        Errc::kInvalidArgument);
  CHECK(Pool::create({.capacity_bytes = kMiB, .initial_bytes = 2 * kMiB}).error().code ==
        Errc::kInvalidArgument);
  CHECK(Pool::create({.capacity_bytes = kMiB, .window_bytes = 5000}).error().code ==
        Errc::kInvalidArgument);
}

TEST_CASE("kvmalloc in every tier survives every failing call with its state unchanged") {
  Messages messages;
  FaultOs os;
  ScopedOs scope(os);
  for (const bool scattered : {false, true}) {
    for (const bool for_ever : {false, true}) {
      for (std::uint64_t n = 1;; ++n) {
        const auto pool =
            scattered ? make() : make({.capacity_bytes = 8 * kMiB, .window_bytes = 64 * kMiB});
        const auto held = scattered ? fragment(*pool) : std::vector<void*>{};
        const PoolStats before = pool->stats();
        for_ever ? os.fail_from(n) : os.fail_nth(n);
        void* buffer = pool->kvmalloc(scattered ? 4 * kPageBytes : 5 * kMiB);
        os.disarm();
        pool->audit();
        if (buffer == nullptr) {
          pool->purge();  // what could not be undone is lazy
          check_same_but_populated(before, pool->stats());
        }
        pool->kvfree(buffer);
        free_all(*pool, held);
        CHECK(pool->stats().live == Bytes(0));
        pool->audit();
        if (!os.fired()) {
          CHECK(buffer != nullptr);
          break;
        }
        REQUIRE(n < 100);
      }
    }
  }
  CHECK(os.holds_nothing());
}

TEST_CASE("the default pool serves the free functions") {
  void* buffer = kvmalloc(kPageBytes, AllocFlags::kZero, "test");
  REQUIRE(buffer != nullptr);
  CHECK(default_pool().kvsize(buffer) == kPageBytes);
  kvfree(buffer);
}

TEST_CASE("in a test program the default pool has no thread that would call what others simulate") {
  CHECK_FALSE(default_pool().config().background);
}
