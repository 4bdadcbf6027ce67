// A pool behind the standard library's interfaces, and behind keel.h.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <string>
#include <thread>
#include <vector>

#include "keel/alloc/memory_resource.h"
#include "keel/alloc/pool.h"
#include "keel/alloc/stl_allocator.h"
#include "keel/base/scopes.h"
#include "keel/keel.h"
#include "support/bug_recorder.h"
#include "support/death.h"
#include "support/fault_os.h"
#include "support/run_again.h"

using namespace keel;

namespace {

std::unique_ptr<Pool> make_pool() {
  // Without a thread, which may have idle buffers in its hands when they are counted.
  auto pool = Pool::create({.capacity_bytes = std::size_t{8} << 20, .background = false});
  REQUIRE(pool.ok());
  return std::move(*pool);
}

struct alignas(256) Wide {
  char bytes[300];
};
struct alignas(2 * kPageBytes) TooWide {
  char byte;
};

}  // namespace

TEST_CASE("a pool's resource aligns as asked, up to a page, and refuses more") {
  const auto pool = make_pool();
  PoolResource resource(*pool);
  for (std::size_t alignment = 1; alignment <= kPageBytes; alignment *= 2) {
    for (const std::size_t bytes : {0UL, 1UL, 17UL, 100UL, 1000UL, 3000UL, 4095UL, 5000UL}) {
      void* address = resource.allocate(bytes, alignment);
      REQUIRE(reinterpret_cast<std::uintptr_t>(address) % alignment == 0);
      std::memset(address, 1, bytes);
      REQUIRE(pool->kvsize(address) >= bytes);
      resource.deallocate(address, bytes, alignment);
    }
  }
  CHECK_THROWS_AS((void)resource.allocate(1, 2 * kPageBytes), std::bad_alloc);
  CHECK(pool->stats().live == Bytes(0));
  pool->audit();
}

TEST_CASE("a pool's resource throws bad_alloc when the pool is exhausted, and serves again later") {
  const auto pool = make_pool();
  PoolResource resource(*pool);
  std::vector<void*> held;
  const MessageHook before = set_message_hook([](const char*) {});
  const auto fill = [&] {
    for (;;) {
      held.push_back(resource.allocate(std::size_t{1} << 20));
    }
  };
  CHECK_THROWS_AS(fill(), std::bad_alloc);
  set_message_hook(before);
  CHECK(held.size() == 8);
  for (void* address : held) {
    resource.deallocate(address, std::size_t{1} << 20);
  }
  void* again = resource.allocate(std::size_t{1} << 20);
  resource.deallocate(again, std::size_t{1} << 20);
  CHECK(pool->stats().live == Bytes(0));
}

TEST_CASE("resources are equal if their pool is the same") {
  const auto pool = make_pool();
  const auto other = make_pool();
  CHECK(PoolResource(*pool, "a") == PoolResource(*pool, "b"));
  CHECK_FALSE(PoolResource(*pool) == PoolResource(*other));
  CHECK_FALSE(PoolResource(*pool) == *std::pmr::new_delete_resource());
}

TEST_CASE("standard containers live in a pool, through both interfaces") {
  const auto pool = make_pool();
  {
    PoolResource resource(*pool);
    std::pmr::map<int, std::pmr::string> map(&resource);
    std::vector<std::uint64_t, PoolAllocator<std::uint64_t>> vector{
        PoolAllocator<std::uint64_t>(*pool, "vector")};
    std::list<Wide, PoolAllocator<Wide>> list{PoolAllocator<Wide>(*pool)};
    for (int i = 0; i < 300; ++i) {
      map[i] = std::pmr::string(static_cast<std::size_t>(i), 'x');
      vector.push_back(static_cast<std::uint64_t>(i));
      if (i % 10 == 0) {
        REQUIRE(reinterpret_cast<std::uintptr_t>(&list.emplace_back()) % alignof(Wide) == 0);
      }
    }
    CHECK(map[299].size() == 299);
    CHECK(vector[299] == 299);
    CHECK(pool->stats().live > Bytes(0));
    auto moved = std::move(vector);
    CHECK(moved.size() == 300);
  }
  CHECK(pool->stats().live == Bytes(0));
  pool->audit();
}

TEST_CASE("a pool's allocator throws for counts that overflow and for alignments above a page") {
  const auto pool = make_pool();
  PoolAllocator<std::uint64_t> words(*pool);
  // Eight times this is 8 if nobody looks.
  CHECK_THROWS_AS((void)words.allocate((std::size_t{1} << 61) + 1), std::bad_alloc);
  PoolAllocator<TooWide> wide(*pool);
  CHECK_THROWS_AS((void)wide.allocate(1), std::bad_alloc);
  const auto other = make_pool();
  CHECK(PoolAllocator<int>(*pool) == PoolAllocator<char>(*pool));
  CHECK_FALSE(PoolAllocator<int>(*pool) == PoolAllocator<char>(*other));
}

TEST_CASE("the calls of keel.h are those of the default pool") {
  auto* buffer = static_cast<unsigned char*>(keel_kvzalloc(100'000, KEEL_KERNEL, "c"));
  REQUIRE(buffer != nullptr);
  CHECK(buffer[99'999] == 0);
  CHECK(keel_kvsize(buffer) >= 100'000);
  std::memset(buffer, 7, 100'000);
  buffer = static_cast<unsigned char*>(keel_kvrealloc(buffer, 300'000, KEEL_KERNEL, nullptr));
  REQUIRE(buffer != nullptr);
  CHECK(buffer[0] == 7);
  CHECK(buffer[99'999] == 7);
  keel_kvfree_sized(buffer, 300'000);
  void* fresh = keel_kvrealloc(nullptr, 5000, KEEL_NOWAIT | KEEL_NOWARN, nullptr);
  REQUIRE(fresh != nullptr);
  CHECK(keel_kvrealloc(fresh, 0, KEEL_KERNEL, nullptr) == nullptr);
  CHECK(keel_kvmalloc(0, KEEL_KERNEL, nullptr) == nullptr);
  keel_kvfree(nullptr);
  CHECK(keel_kvsize(nullptr) == 0);
  CHECK(keel_reserve(1 << 20) == 0);
  CHECK(keel_reserve(SIZE_MAX / 2) == ENOMEM);
  keel_purge();
  (void)keel_trim();

  keel_test::BugRecorder bugs;
  int local = 0;
  keel_kvfree(&local);
  CHECK(bugs.count() == 1);
  CHECK(bugs.take().bug == Bug::kUnknownAddress);
}

TEST_CASE("statistics as JSON fit any buffer, or none") {
  // Counters may grow by a digit between the calls.
  REQUIRE(keel_stats_json(nullptr, 0) > 100);
  std::string text(keel_stats_json(nullptr, 0) + 100, '?');
  const std::size_t length = keel_stats_json(text.data(), text.size());
  CHECK(text[length] == '\0');
  CHECK(text[0] == '{');
  CHECK(text[length - 1] == '}');
  CHECK(text.find("\"capacity") != std::string::npos);
  for (const std::size_t room : {std::size_t{1}, std::size_t{10}, length / 2}) {
    std::string cut(room + 8, '?');
    CHECK(keel_stats_json(cut.data(), room) >= room);
    CHECK(std::strlen(cut.c_str()) == room - 1);
    CHECK(cut[room] == '?');
  }
}

TEST_CASE("where no default pool can be made there is no memory, until one can") {
  if (std::getenv("KEEL_TEST_NO_POOL") == nullptr) {  // another case may have made it here
    CHECK(keel_test::passes_with("KEEL_TEST_NO_POOL", "1", "where no default pool can be made*"));
    return;
  }
  {
    keel_test::FaultOs os;
    const ScopedOs scope(os);
    os.fail_from(1);
    CHECK(try_default_pool().error().code == Errc::kNoMemory);
    CHECK(keel_kvmalloc(100, KEEL_KERNEL, nullptr) == nullptr);
    CHECK(keel_kvrealloc(nullptr, 100, KEEL_KERNEL, nullptr) == nullptr);
    CHECK(kvmalloc(5000) == nullptr);
    keel_kvfree(nullptr);
    keel_kvfree_sized(nullptr, 100);
    CHECK(keel_kvsize(nullptr) == 0);
    CHECK(keel_reserve(4096) == ENOMEM);
    CHECK(keel_trim() == 0);
    keel_purge();
    CHECK(keel_stats_json(nullptr, 0) == 0);
    CHECK(keel_test::run_in_child([] { (void)default_pool(); }).aborted_with("default pool"));
    int sleeps = 0;
    os.use_virtual_time([&] { ++sleeps; });
    CHECK(keel_kvmalloc(0, KEEL_NOFAIL, nullptr) == nullptr);
    CHECK(keel_kvmalloc((std::size_t{1} << 30) + 1, KEEL_NOFAIL, nullptr) == nullptr);
    CHECK(sleeps == 0);
    CHECK(os.holds_nothing());
    // Who must not fail waits, and says so.
    static int messages;
    messages = 0;
    const MessageHook before = set_message_hook(
        [](const char* line) { messages += std::strstr(line, "default pool") != nullptr ? 1 : 0; });
    os.use_virtual_time([&] {
      if (++sleeps == 100) {
        os.disarm();
      }
    });
    void* buffer = keel_kvmalloc(100, KEEL_NOFAIL, nullptr);
    CHECK(buffer != nullptr);
    keel_kvfree(buffer);
    CHECK(sleeps == 100);
    CHECK(messages == 4);
    set_message_hook(before);
  }
  CHECK(*try_default_pool() == &default_pool());
}

TEST_CASE("in a NoAllocScope nobody waits for the default pool, and one bug is told") {
  if (std::getenv("KEEL_TEST_NO_POOL") == nullptr) {
    CHECK(keel_test::passes_with("KEEL_TEST_NO_POOL", "1", "in a NoAllocScope nobody waits*"));
    return;
  }
  keel_test::FaultOs os;
  const ScopedOs scope(os);
  os.use_virtual_time([] { ::_exit(1); });  // Nobody sleeps.
  keel_test::BugRecorder bugs;
  for (const auto flags : {std::uint32_t{KEEL_KERNEL}, std::uint32_t{KEEL_NOFAIL}}) {
    void* refused = nullptr;
    {
      const NoAllocScope no_alloc;
      refused = keel_kvmalloc(64, flags, nullptr);
    }
    CHECK(refused == nullptr);
    REQUIRE(bugs.count() == 1);
    CHECK(bugs.take().bug == Bug::kAllocationInNoAllocScope);
  }
}

TEST_CASE("two threads that are the first to want the default pool get one, made once") {
  if (std::getenv("KEEL_TEST_NO_POOL") == nullptr) {
    CHECK(keel_test::passes_with("KEEL_TEST_NO_POOL", "1", "two threads that are the first to*"));
    return;
  }
  // Has what one pool takes.
  class RoomForOne final : public Os {
   public:
    int memfd_create(const char* name, unsigned flags) override {
      if (stores++ != 0) {
        return -EMFILE;
      }
      sleep_ns(20'000'000);  // the other thread comes
      return Os::memfd_create(name, flags);
    }
    std::atomic<int> stores{0};
  };
  RoomForOne os;
  const ScopedOs scope(os);
  Pool* other = nullptr;
  std::thread thread([&other] {
    const auto made = try_default_pool();
    other = made ? *made : nullptr;
  });
  const auto made = try_default_pool();
  thread.join();
  REQUIRE(made.ok());
  CHECK(other == *made);
  CHECK(os.stores == 1);
}

TEST_CASE("a child forked while its parent makes the default pool makes one of its own") {
  if (std::getenv("KEEL_TEST_NO_POOL") == nullptr) {
    CHECK(keel_test::passes_with("KEEL_TEST_NO_POOL", "1", "a child forked while its parent*"));
    return;
  }
  // Waits in the first thread that comes.
  class Slow final : public Os {
   public:
    int memfd_create(const char* name, unsigned flags) override {
      if (!entered.exchange(true)) {
        while (!go_on) {
          std::this_thread::yield();
        }
      }
      return Os::memfd_create(name, flags);
    }
    std::atomic<bool> entered{false};
    std::atomic<bool> go_on{false};
  };
  Slow os;
  const ScopedOs scope(os);
  std::thread thread([] { CHECK(try_default_pool().ok()); });
  while (!os.entered) {
    std::this_thread::yield();
  }
  const auto ending = keel_test::run_in_child(
      [] { ::_exit(keel_kvmalloc(100, KEEL_KERNEL, nullptr) != nullptr ? 0 : 1); });
  os.go_on = true;
  thread.join();
  CHECK(ending.signal == 0);
  CHECK(ending.exit_code == 0);
}
