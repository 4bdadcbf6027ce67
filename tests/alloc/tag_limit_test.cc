// Limits of owners: charged and given back exactly, whatever becomes of the buffer.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <barrier>
#include <memory>
#include <string>
#include <thread>

#include "pool_support.h"
#include "support/fault_os.h"
#include "tags.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kLimit = kMiB;

std::unique_ptr<Pool> limited() {
  auto pool = make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  REQUIRE(pool->set_limit("limited", Bytes(kLimit)).ok());
  return pool;
}

void* get(Pool& pool, std::size_t size, AllocFlags flags = AllocFlags::kKernel) {
  return pool.kvmalloc(size, flags | AllocFlags::kNoWarn, "limited");
}

// What of the limit is left, found out by taking it, page by page.
std::size_t left_of(Pool& pool) {
  std::vector<void*> pages;
  while (void* page = get(pool, kPage)) {
    pages.push_back(page);
  }
  const std::size_t left = pages.size() * kPage;
  free_all(pool, pages);
  return left;
}

}  // namespace

TEST_CASE("an owner gets what its limit allows and not a page more") {
  const auto pool = limited();
  CHECK(left_of(*pool) == kLimit);
  void* all = get(*pool, kLimit);
  REQUIRE(all != nullptr);
  CHECK(get(*pool, 1) == nullptr);
  CHECK(get(*pool, 1, AllocFlags::kNoWait) == nullptr);
  CHECK(pool->kvmalloc(1, AllocFlags::kKernel, "another") != nullptr);
  pool->kvfree(all);
  CHECK(left_of(*pool) == kLimit);
  CHECK(get(*pool, kLimit + 1) == nullptr);
  CHECK(left_of(*pool) == kLimit);
  // An owner is its name, wherever that stands.
  static const std::array<char, 8> kSameName{"limited"};
  CHECK(pool->kvmalloc(kLimit + 1, AllocFlags::kNoWarn, kSameName.data()) == nullptr);
  all = pool->kvmalloc(kLimit, AllocFlags::kKernel, kSameName.data());
  REQUIRE(all != nullptr);
  CHECK(left_of(*pool) == 0);
  pool->kvfree(all);
}

TEST_CASE(
    "kNoFail is refused at once what its owner's limit could never hold, and waits for the rest") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  const auto pool = limited();
  int sleeps = 0;
  // Who waits in vain gets it in the end.
  os.use_virtual_time([&] {
    if (++sleeps == 50) {
      REQUIRE(pool->set_limit("limited", Bytes(16 * kMiB)).ok());
    }
  });
  CHECK(pool->kvmalloc(kLimit + 1, AllocFlags::kNoFail, "limited") == nullptr);
  REQUIRE(Messages::lines().size() == 1);
  CHECK(Messages::lines()[0].find("'limited' (holds 0 of 1048576 allowed)") != std::string::npos);
  REQUIRE(pool->set_limit("limited", Bytes(100)).ok());
  CHECK(get(*pool, 200, AllocFlags::kNoFail) == nullptr);
  CHECK(sleeps == 0);
  // A small object needs less than a page.
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  void* object = get(*pool, 96, AllocFlags::kNoFail);
  REQUIRE(pool->kvsize(object) == 96);
  os.use_virtual_time([&] {
    if (++sleeps == 10) {
      pool->kvfree(object);
    }
  });
  void* other = get(*pool, 96, AllocFlags::kNoFail);
  CHECK(other != nullptr);
  CHECK(sleeps == 10);
  // A limit that is set while somebody waits.
  os.use_virtual_time([&] {
    if (++sleeps == 20) {
      REQUIRE(pool->set_limit("limited", Bytes(50)).ok());
    }
  });
  CHECK(get(*pool, 96, AllocFlags::kNoFail) == nullptr);
  CHECK(sleeps == 20);
  pool->kvfree(other);
  pool->audit();
}

TEST_CASE("an object of the system's malloc is charged for as much as was asked for") {
  const auto pool =
      make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB, .system_malloc = true});
  REQUIRE(pool->set_limit("limited", Bytes(199)).ok());
  void* first = get(*pool, 100);
  REQUIRE(first != nullptr);
  CHECK(get(*pool, 100) == nullptr);
  void* second = get(*pool, 99);
  CHECK(second != nullptr);
  pool->kvfree(first);
  CHECK(get(*pool, 101) == nullptr);
  first = get(*pool, 100);
  CHECK(first != nullptr);
  pool->kvfree(first);
  pool->kvfree(second);
}

TEST_CASE("owners are compared as text") {
  const auto pool = limited();
  static char other[] = "limited";
  void* all = pool->kvmalloc(kLimit, AllocFlags::kKernel, other);
  REQUIRE(all != nullptr);
  CHECK(get(*pool, 1) == nullptr);
  pool->kvfree(all);
}

TEST_CASE("whole buffers are charged, in every tier and size, and given back when freed") {
  const auto pool = limited();
  REQUIRE(pool->set_limit("limited", Bytes(12 * kMiB)).ok());
  std::size_t held = 0;
  std::vector<void*> buffers;
  for (const std::size_t size : {std::size_t{1}, 17 * kPage, 40'000UL, kMiB + 1, 5 * kMiB}) {
    buffers.push_back(get(*pool, size));
    REQUIRE(buffers.back() != nullptr);
    held += pool->kvsize(buffers.back());
  }
  // An idle buffer counts as nobody's, and as the new owner's again.
  pool->kvfree(buffers.back());
  held -= 5 * kMiB;
  buffers.back() = get(*pool, 17 * kPage);
  held += pool->kvsize(buffers.back());
  CHECK(left_of(*pool) == 12 * kMiB - held);
  free_all(*pool, buffers);
  CHECK(left_of(*pool) == 12 * kMiB);
  pool->audit();
}

TEST_CASE("an idle buffer that is larger than its class is charged for all that it has") {
  const auto pool = limited();
  pool->kvfree(pool->kvmalloc(110 * kPage, AllocFlags::kKernel, "another"));
  void* buffer = get(*pool, 97 * kPage);  // of the class of 104 pages, as the idle one
  REQUIRE(pool->kvsize(buffer) == 110 * kPage);
  CHECK(left_of(*pool) == kLimit - 110 * kPage);
  pool->kvfree(buffer);
  CHECK(left_of(*pool) == kLimit);
}

TEST_CASE("where memory is scarce a buffer of fewer pages than its class is charged for those") {
  const auto pool = make_pool({.capacity_bytes = 2 * kMiB, .window_bytes = 64 * kMiB});
  REQUIRE(pool->set_limit("limited", Bytes(64 * kPage)).ok());
  void* most = pool->kvmalloc(400 * kPage, AllocFlags::kKernel, "another");
  REQUIRE(most != nullptr);
  void* buffer = get(*pool, 33 * kPage);
  REQUIRE(pool->kvsize(buffer) == 33 * kPage);
  CHECK(left_of(*pool) == 31 * kPage);
  pool->kvfree(buffer);
  CHECK(left_of(*pool) == 64 * kPage);
  pool->kvfree(most);
  pool->audit();
}

TEST_CASE("a limit allows what lies within it, also between two classes and beside idle buffers") {
  const auto pool = limited();
  REQUIRE(pool->set_limit("limited", Bytes(100 * kPage)).ok());
  void* all = get(*pool, 100 * kPage);
  REQUIRE(all != nullptr);
  CHECK(pool->kvsize(all) == 100 * kPage);
  CHECK(get(*pool, 1) == nullptr);
  pool->kvfree(all);
  CHECK(pool->trim() > Bytes(0));
  CHECK(left_of(*pool) == 100 * kPage);
  // The idle one would pass it.
  REQUIRE(pool->set_limit("limited", Bytes(104 * kPage)).ok());
  pool->kvfree(pool->kvmalloc(110 * kPage, AllocFlags::kKernel, "another"));
  void* most = get(*pool, 97 * kPage);
  REQUIRE(most != nullptr);
  CHECK(pool->kvsize(most) == 97 * kPage);
  CHECK(left_of(*pool) == 7 * kPage);
  pool->kvfree(most);
  CHECK(left_of(*pool) == 104 * kPage);
  pool->audit();
}

TEST_CASE("small objects are charged with what their class has, and given back when freed") {
  const auto pool = limited();
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  std::vector<void*> objects;
  for (int i = 0; i < 100; ++i) {
    objects.push_back(get(*pool, 60));
    REQUIRE(pool->kvsize(objects.back()) == 64);
  }
  CHECK(left_of(*pool) == kLimit - 2 * kPage);  // 6,400 bytes
  free_all(*pool, objects);
  CHECK(left_of(*pool) == kLimit);
}

TEST_CASE("a small object that there is no slab for is not charged") {
  const auto pool = make_pool({.capacity_bytes = 2 * kMiB, .window_bytes = 64 * kMiB});
  REQUIRE(pool->set_limit("limited", Bytes(kPage)).ok());
  auto pages = fill(*pool, kPage);
  for (int i = 0; i < 3; ++i) {
    CHECK(get(*pool, 2000) == nullptr);
  }
  free_all(*pool, pages);
  CHECK(left_of(*pool) == kPage);
}

TEST_CASE("what was allocated before there was a limit is not charged, nor given back") {
  const auto pool = make_pool({.capacity_bytes = 16 * kMiB});
  void* before = get(*pool, kLimit);
  REQUIRE(pool->set_limit("limited", Bytes(kLimit)).ok());
  void* after = get(*pool, kLimit);
  CHECK(after != nullptr);
  pool->kvfree(before);
  CHECK(get(*pool, 1) == nullptr);
  pool->kvfree(after);
  CHECK(left_of(*pool) == kLimit);
}

TEST_CASE("a limit can be raised, lowered below what is held, and be nothing at all") {
  const auto pool = limited();
  void* half = get(*pool, kLimit / 2);
  REQUIRE(pool->set_limit("limited", Bytes(2 * kLimit)).ok());
  CHECK(left_of(*pool) == kLimit + kLimit / 2);
  REQUIRE(pool->set_limit("limited", Bytes(kPage)).ok());
  CHECK(left_of(*pool) == 0);
  pool->kvfree(half);
  CHECK(left_of(*pool) == kPage);
  REQUIRE(pool->set_limit("limited", Bytes(0)).ok());
  CHECK(left_of(*pool) == 0);
}

TEST_CASE("an allocation that fails leaves nothing charged") {
  const Messages messages;
  FaultOs os;
  const ScopedOs scope(os);
  for (std::uint64_t n = 1;; ++n) {
    const auto pool = limited();
    REQUIRE(pool->set_limit("limited", Bytes(8 * kMiB)).ok());
    os.fail_from(n);
    void* buffer = get(*pool, 5 * kMiB);
    os.disarm();
    CHECK(left_of(*pool) == 8 * kMiB - pool->kvsize(buffer));
    pool->kvfree(buffer);
    CHECK(left_of(*pool) == 8 * kMiB);
    if (!os.fired()) {
      break;
    }
    REQUIRE(n < 100);
  }
}

TEST_CASE("a reallocation needs both buffers within the limit while it moves") {
  const auto pool = limited();
  void* buffer = get(*pool, kLimit / 4);
  void* larger = pool->kvrealloc(buffer, kLimit / 2, AllocFlags::kKernel, "limited");
  REQUIRE(larger != nullptr);
  CHECK(left_of(*pool) == kLimit / 2);
  CHECK(pool->kvrealloc(larger, kLimit, AllocFlags::kNoWarn, "limited") == nullptr);
  CHECK(left_of(*pool) == kLimit / 2);
  void* smaller = pool->kvrealloc(larger, kLimit / 8, AllocFlags::kKernel, "limited");
  REQUIRE(smaller != nullptr);
  CHECK(left_of(*pool) == kLimit - kLimit / 8);
  pool->kvfree(smaller);
  CHECK(left_of(*pool) == kLimit);
}

TEST_CASE("an allocation without an owner is not limited") {
  const auto pool = limited();
  void* buffer = pool->kvmalloc(kPage, AllocFlags::kKernel, nullptr);
  CHECK(buffer != nullptr);
  pool->kvfree(buffer);
}

TEST_CASE("a small object without an owner is not limited") {
  const auto pool = limited();
  REQUIRE(pool->reserve(Bytes(kMiB)).ok());
  void* object = pool->kvmalloc(64, AllocFlags::kKernel, nullptr);
  REQUIRE(object != nullptr);
  CHECK(pool->kvsize(object) == 64);
  pool->kvfree(object);
  CHECK(left_of(*pool) == kLimit);
}

TEST_CASE("64 owners can have limits, and each of these can be changed") {
  static std::vector<std::string> names;
  names.clear();
  for (int i = 0; i < 65; ++i) {
    names.push_back("owner " + std::to_string(i));
  }
  const auto pool = make_pool({.capacity_bytes = 2 * kMiB});
  for (unsigned i = 0; i < 65; ++i) {
    CHECK(pool->set_limit(names[i].c_str(), Bytes(0)).ok() == (i < TagLimits::kMost));
  }
  CHECK(pool->set_limit(names[63].c_str(), Bytes(kPage)).ok());
  void* buffer = pool->kvmalloc(1, AllocFlags::kKernel, names[63].c_str());
  CHECK(buffer != nullptr);
  CHECK(pool->kvmalloc(1, AllocFlags::kNoWarn, names[62].c_str()) == nullptr);
  pool->kvfree(buffer);
}

TEST_CASE("owners that get their limits on several threads at once all have them") {
  constexpr unsigned kThreads = 4;
  constexpr unsigned kEach = TagLimits::kMost / kThreads;
  constexpr int kRounds = 500;
  std::vector<std::string> names;
  for (unsigned i = 0; i < TagLimits::kMost; ++i) {
    names.push_back("at once " + std::to_string(i));
  }
  std::unique_ptr<TagLimits> limits;
  std::atomic<unsigned> refused{0};
  unsigned lost = 0;
  std::barrier meeting(kThreads + 1);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        meeting.arrive_and_wait();  // the round has its table
        for (unsigned i = t * kEach; i < (t + 1) * kEach; ++i) {
          refused += limits->set(names[i].c_str(), Bytes(0)).ok() ? 0U : 1U;
        }
        meeting.arrive_and_wait();  // all have set theirs
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    limits = std::make_unique<TagLimits>();
    meeting.arrive_and_wait();
    meeting.arrive_and_wait();
    for (const std::string& name : names) {
      lost += limits->find(name.c_str()) == TagLimits::kUnlimited ? 1U : 0U;
    }
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(refused == 0);
  CHECK(lost == 0);
}

TEST_CASE("threads of one owner never pass its limit together, and leave nothing charged") {
  const auto pool = limited();
  std::atomic<std::size_t> held{0};
  std::atomic<std::size_t> passed{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 3'000; ++i) {
        const std::size_t size = kPage * (1 + (i + t) % 60);
        void* buffer = get(*pool, size);
        if (buffer == nullptr) {
          continue;
        }
        const std::size_t mine = pool->kvsize(buffer);
        passed += (held += mine) > kLimit ? 1 : 0;
        held -= mine;
        pool->kvfree(buffer);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(passed == 0);
  CHECK(left_of(*pool) == kLimit);
  pool->audit();
}
