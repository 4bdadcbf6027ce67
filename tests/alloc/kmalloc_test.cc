// Objects below a page, alone over memory of the test's, on both backends.
#include "kmalloc.h"

#include <doctest/doctest.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cpu_pin.h"
#include "support/death.h"
#include "support/extent_memory.h"
#include "support/fault_os.h"
#include "support/refused_calls.h"
#include "support/run_again.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel;
using keel_test::ExtentMemory;

namespace {

constexpr Pages kFrames{4096};

std::unique_ptr<Kmalloc> make(ExtentMemory& memory,
                              KmallocBackend backend = KmallocBackend::kSlabs) {
  auto made = Kmalloc::create({memory.base(), memory.capacity(), &memory, backend});
  REQUIRE(made.ok());
  return std::move(*made);
}

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

struct Rig {
  explicit Rig(KmallocBackend backend = KmallocBackend::kSlabs) : kmalloc(make(memory, backend)) {}
  ExtentMemory memory{kFrames};
  std::unique_ptr<Kmalloc> kmalloc;
};

// Allocated from the jemalloc inside keel, its own caches included.
std::size_t jemalloc_bytes() {
  std::uint64_t epoch = 1;
  std::size_t bytes = 0;
  std::size_t room = sizeof bytes;
  REQUIRE(keel_je_mallctl("epoch", nullptr, nullptr, &epoch, sizeof epoch) == 0);
  REQUIRE(keel_je_mallctl("stats.allocated", &bytes, &room, nullptr, 0) == 0);
  return bytes;
}

void check_named(const KmallocObject& found, KmallocOutcome outcome, const void* start,
                 std::uint16_t tag) {
  CHECK(found.outcome == outcome);
  CHECK(found.start == start);
  CHECK(found.tag == tag);
}

}  // namespace

TEST_CASE("an object of each size is aligned, holds what is written, and is found") {
  for (const KmallocBackend backend : {KmallocBackend::kSlabs, KmallocBackend::kSystem}) {
    Rig rig(backend);
    std::vector<std::pair<unsigned char*, std::size_t>> objects;
    for (std::size_t size = 1; size <= kKmallocMaxBytes; ++size) {
      const auto tag = static_cast<std::uint16_t>(size);
      auto* object = static_cast<unsigned char*>(rig.kmalloc->allocate(size, tag));
      REQUIRE(object != nullptr);
      REQUIRE(number(object) % (is_power_of_two(size) ? size : 1) == 0);
      REQUIRE(number(object) % 16 == 0);
      std::memset(object, static_cast<int>(size & 0xFF), size);
      REQUIRE(rig.kmalloc->size(object) >= size);
      REQUIRE(rig.kmalloc->owns(object));
      check_named(rig.kmalloc->find(object), KmallocOutcome::kOk, object, tag);
      objects.emplace_back(object, size);
    }
    rig.kmalloc->audit();
    CHECK(rig.kmalloc->stats().objects == kKmallocMaxBytes);
    for (const auto& [object, size] : objects) {
      REQUIRE(object[0] == (size & 0xFF));
      REQUIRE(object[size - 1] == (size & 0xFF));
      const KmallocObject freed = rig.kmalloc->free(object);
      REQUIRE(freed.outcome == KmallocOutcome::kOk);
      REQUIRE(freed.bytes.value() >= size);
      REQUIRE(freed.tag == size);
    }
    rig.kmalloc->audit();
    CHECK(rig.kmalloc->stats().live == Bytes(0));
  }
}

TEST_CASE("lengths of slabs that the environment wants of jemalloc are not taken") {
  const char* const longer = "slab_sizes:2049-4096:300";
  const char* const many =
      "slab_sizes:16-16:2|32-32:3|48-48:4|64-64:6|80-80:8|96-96:9|112-112:10|128-128:11|"
      "160-160:12|192-192:13|224-224:14|256-256:15|320-320:16|384-384:17|448-448:18|512-512:19";
  for (const char* lengths : {longer, many}) {
    CHECK(keel_test::passes_with("MALLOC_CONF", lengths, "an object of each size is aligned*"));
  }
}

TEST_CASE("a size of zero, and a page and more, are refused at once") {
  Rig rig;
  CHECK(rig.kmalloc->allocate(0, 1) == nullptr);
  CHECK(rig.kmalloc->allocate(kPageBytes, 1) == nullptr);
  CHECK(rig.kmalloc->allocate(~std::size_t{0}, 1) == nullptr);
  CHECK(rig.memory.calls() == 0);
}

TEST_CASE("objects come from the source alone, in runs of one slab, and release gives all back") {
  Rig rig;
  std::vector<void*> objects;
  for (std::size_t size = 16; size <= kKmallocMaxBytes; size += 16) {
    for (int i = 0; i < 20; ++i) {
      objects.push_back(rig.kmalloc->allocate(size, 0));
      REQUIRE(objects.back() != nullptr);
      REQUIRE(static_cast<const std::byte*>(objects.back()) >= rig.memory.base());
      REQUIRE(static_cast<const std::byte*>(objects.back()) <
              rig.memory.base() + bytes_of(rig.memory.capacity()));
    }
  }
  CHECK(rig.memory.longest() <= 8);  // jemalloc's own slabs, never a growth in advance
  CHECK(rig.kmalloc->stats().held == Bytes(rig.memory.held() * kPageBytes));
  const std::uint64_t held = rig.memory.held();
  for (void* object : objects) {
    REQUIRE(rig.kmalloc->free(object).outcome == KmallocOutcome::kOk);
  }
  CHECK(rig.memory.held() == held);  // cached, until somebody wants it back
  CHECK(rig.kmalloc->release() == Bytes(held * kPageBytes));
  CHECK(rig.memory.held() == 0);
  CHECK(rig.kmalloc->release() == Bytes(0));
  rig.kmalloc->audit();
}

TEST_CASE("slabs that were cached serve objects of other sizes that have slabs as long") {
  Rig rig;
  const std::size_t sizes[] = {16, 1024, 64};
  for (int round = 0; round < 50; ++round) {
    for (const std::size_t size : sizes) {
      std::vector<void*> objects;
      for (int i = 0; i < 600; ++i) {
        objects.push_back(rig.kmalloc->allocate(size, 7));
        REQUIRE(objects.back() != nullptr);
        REQUIRE(rig.kmalloc->size(objects.back()) == size);
      }
      for (void* object : objects) {
        REQUIRE(rig.kmalloc->free(object).outcome == KmallocOutcome::kOk);
      }
      rig.kmalloc->audit();
    }
  }
  // What the largest round needs, and what lies in the caches of the others.
  CHECK(rig.memory.held() < 400);
}

TEST_CASE("wrong frees are told apart, and change nothing") {
  Rig rig;
  auto* object = static_cast<std::byte*>(rig.kmalloc->allocate(300, 41));
  auto* next = static_cast<std::byte*>(rig.kmalloc->allocate(300, 42));
  const std::size_t bytes = rig.kmalloc->size(object);
  REQUIRE(bytes == 320);
  for (std::size_t at = 1; at < bytes; ++at) {
    check_named(rig.kmalloc->free(object + at), KmallocOutcome::kInterior, object, 41);
  }
  int local = 0;
  check_named(rig.kmalloc->free(&local), KmallocOutcome::kUnknown, nullptr, 0);
  check_named(rig.kmalloc->free(nullptr), KmallocOutcome::kUnknown, nullptr, 0);
  std::byte* const base = const_cast<std::byte*>(rig.memory.base());
  std::byte* const end = base + bytes_of(rig.memory.capacity());
  check_named(rig.kmalloc->free(base - 1), KmallocOutcome::kUnknown, nullptr, 0);
  check_named(rig.kmalloc->free(end), KmallocOutcome::kUnknown, nullptr, 0);
  check_named(rig.kmalloc->free(end - 16), KmallocOutcome::kUnknown, nullptr, 0);
  CHECK(rig.kmalloc->stats().frees == 0);

  check_named(rig.kmalloc->free(object), KmallocOutcome::kOk, object, 41);
  check_named(rig.kmalloc->free(object), KmallocOutcome::kDouble, object, 41);
  check_named(rig.kmalloc->free(object), KmallocOutcome::kDouble, object, 41);
  check_named(rig.kmalloc->free(object + 16), KmallocOutcome::kUnknown, nullptr, 0);
  CHECK(rig.kmalloc->size(object) == 0);
  CHECK(rig.kmalloc->find(next).outcome == KmallocOutcome::kOk);
  CHECK(rig.kmalloc->stats().frees == 1);
  rig.kmalloc->audit();
  check_named(rig.kmalloc->free(next), KmallocOutcome::kOk, next, 42);
}

TEST_CASE("an object's neighbour that nobody has yet is no object, and no double free") {
  Rig rig;
  auto* object = static_cast<std::byte*>(rig.kmalloc->allocate(1000, 3));
  // Somewhere in the page behind it, if that is the slab's: never given out.
  int unknown = 0;
  for (std::size_t slot = 0; slot < kPageBytes; slot += 1024) {
    std::byte* start = reinterpret_cast<std::byte*>(round_down(number(object), kPageBytes)) + slot;
    if (start != object) {
      unknown += rig.kmalloc->free(start).outcome == KmallocOutcome::kUnknown ? 1 : 0;
    }
  }
  CHECK(unknown == 3);
}

TEST_CASE("a double free is known after the slab went back, and after it serves other sizes") {
  const keel_test::Pinned here;  // What is idle lies with the CPU that freed it.
  Rig rig;
  auto* object = static_cast<std::byte*>(rig.kmalloc->allocate(64, 5));
  REQUIRE(rig.kmalloc->free(object).outcome == KmallocOutcome::kOk);
  rig.kmalloc->release();
  CHECK_FALSE(rig.kmalloc->owns(object));
  check_named(rig.kmalloc->free(object), KmallocOutcome::kDouble, object, 5);
  // Until the place is used again: then the free hits the new object.
  std::set<void*> held;
  while (held.count(object) == 0) {
    void* again = rig.kmalloc->allocate(64, 6);
    REQUIRE(again != nullptr);
    held.insert(again);
  }
  check_named(rig.kmalloc->free(object), KmallocOutcome::kOk, object, 6);
}

TEST_CASE("when the source refuses any slab, the allocation fails and nothing changes") {
  for (const std::size_t size : {16UL, 48UL, 80UL, 112UL, 2048UL, 4000UL}) {
    Rig rig;
    std::vector<void*> objects;
    for (std::uint64_t n = 1; n <= 12; ++n) {
      rig.memory.refuse_nth(n);
      // Enough for n slabs, whatever is cached.
      while (rig.memory.refused() == 0) {
        void* object = rig.kmalloc->allocate(size, 1);
        if (object != nullptr) {
          objects.push_back(object);
        } else {
          REQUIRE(rig.memory.refused() == 1);
        }
      }
      REQUIRE(rig.kmalloc->stats().objects == objects.size());
      rig.kmalloc->audit();
      void* object = rig.kmalloc->allocate(size, 1);  // the next one may be had
      REQUIRE(object != nullptr);
      objects.push_back(object);
    }
    CHECK(rig.kmalloc->stats().refusals > 0);
    for (void* object : objects) {
      REQUIRE(rig.kmalloc->free(object).outcome == KmallocOutcome::kOk);
    }
    rig.kmalloc->release();
    CHECK(rig.memory.held() == 0);
  }
}

TEST_CASE("a source that has nothing makes allocations fail, not fall back") {
  Rig rig;
  rig.memory.refuse_nth(1, true);
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(rig.kmalloc->allocate(200, 1) == nullptr);
  }
  rig.memory.refuse_nth(0);
  void* object = rig.kmalloc->allocate(200, 1);
  REQUIRE(object != nullptr);
  CHECK(rig.kmalloc->free(object).outcome == KmallocOutcome::kOk);
}

TEST_CASE("the whole range can be used up, freed, and used up again") {
  const keel_test::Pinned here;  // What is idle lies with the CPU that freed it.
  ExtentMemory memory{Pages(64)};
  const auto kmalloc = make(memory);
  for (int round = 0; round < 20; ++round) {
    std::vector<void*> objects;
    while (void* object = kmalloc->allocate(256, 9)) {
      objects.push_back(object);
    }
    CHECK(objects.size() == 64 * 16);
    kmalloc->audit();
    for (void* object : objects) {
      REQUIRE(kmalloc->free(object).outcome == KmallocOutcome::kOk);
    }
    kmalloc->release();
    CHECK(memory.held() == 0);
  }
}

TEST_CASE("what is not freed goes back to the source with its owner") {
  ExtentMemory memory{kFrames};
  {
    const auto kmalloc = make(memory);
    for (std::size_t size = 1; size < kPageBytes; size += 100) {
      REQUIRE(kmalloc->allocate(size, 1) != nullptr);
    }
    CHECK(memory.held() != 0);
  }
  CHECK(memory.held() == 0);
}

TEST_CASE("hundreds of lives one after the other leave nothing behind, at jemalloc's neither") {
  ExtentMemory memory{Pages(256)};
  const auto live_once = [&] {
    const auto kmalloc = make(memory);
    void* object = kmalloc->allocate(100, 1);
    REQUIRE(object != nullptr);
    REQUIRE(kmalloc->free(object).outcome == KmallocOutcome::kOk);
  };
  live_once();
  const std::size_t before = jemalloc_bytes();
  for (int i = 0; i < 300; ++i) {
    live_once();
  }
  CHECK(memory.held() == 0);
  CHECK(jemalloc_bytes() < before + (std::size_t{1} << 20));  // a tcache has some 20 KiB
}

TEST_CASE("kmalloc cannot be made without memory for its tables, and leaks nothing then") {
  ExtentMemory memory{kFrames};
  keel_test::FaultOs faults;
  ScopedOs scope(faults);
  for (const KmallocBackend backend : {KmallocBackend::kSlabs, KmallocBackend::kSystem}) {
    std::uint64_t n = 1;
    for (;; ++n) {
      faults.fail_nth(n);
      const auto made = Kmalloc::create({memory.base(), memory.capacity(), &memory, backend});
      if (!faults.fired()) {
        REQUIRE(made.ok());
        break;
      }
      REQUIRE_FALSE(made.ok());
      REQUIRE(faults.holds_nothing());
    }
    CHECK(n >= 3);
    CHECK(faults.holds_nothing());
  }
}

TEST_CASE("the system behind the same calls tells wrong frees apart too") {
  Rig rig(KmallocBackend::kSystem);
  auto* object = static_cast<std::byte*>(rig.kmalloc->allocate(300, 41));
  REQUIRE(object != nullptr);
  CHECK(rig.kmalloc->size(object) == 300);
  check_named(rig.kmalloc->free(object + 1), KmallocOutcome::kInterior, object, 41);
  check_named(rig.kmalloc->free(object + 299), KmallocOutcome::kInterior, object, 41);
  int local = 0;
  check_named(rig.kmalloc->free(&local), KmallocOutcome::kUnknown, nullptr, 0);
  check_named(rig.kmalloc->free(nullptr), KmallocOutcome::kUnknown, nullptr, 0);
  check_named(rig.kmalloc->free(object), KmallocOutcome::kOk, object, 41);
  check_named(rig.kmalloc->free(object), KmallocOutcome::kDouble, object, 41);
  CHECK(rig.kmalloc->owns(object));
  CHECK_FALSE(rig.kmalloc->owns(&local));
  CHECK(rig.kmalloc->release() == Bytes(0));
  CHECK(rig.memory.calls() == 0);
  rig.kmalloc->audit();
}

TEST_CASE("the system's objects need metadata, and fail without") {
  Rig rig(KmallocBackend::kSystem);
  keel_test::FaultOs faults;
  ScopedOs scope(faults);
  faults.fail_nth(1, keel_test::mask_of(keel_test::OsCall::kMetadata));
  CHECK(rig.kmalloc->allocate(100, 1) == nullptr);
  CHECK(faults.fired());
  void* object = rig.kmalloc->allocate(100, 1);
  CHECK(object != nullptr);
  CHECK(rig.kmalloc->free(object).outcome == KmallocOutcome::kOk);
  CHECK(faults.holds_nothing());
}

TEST_CASE("what is not freed of the system's goes back with its owner") {
  const auto used = [] { return ::mallinfo2().uordblks; };  // 0 under sanitizers
  const std::size_t before = used();
  {
    Rig rig(KmallocBackend::kSystem);
    for (int i = 0; i < 1000; ++i) {
      REQUIRE(rig.kmalloc->allocate(4000, 1) != nullptr);
    }
    CHECK((used() == 0 || used() >= before + 3'000'000));
  }
  CHECK(used() < before + 1'000'000);
}

TEST_CASE("no arenas are made when jemalloc gets no memory for them, and nothing is held") {
#if defined(KEEL_TEST_SANITIZED)
  keel_test::skip_case("a sanitizer ends the process that gets no memory");
  return;
#endif
  const auto ending = keel_test::run_in_child([] {
    ExtentMemory memory(Pages(64));
    SlabTable table;
    if (!table.open(memory.base(), memory.capacity()).ok() ||
        !keel_test::refuse_calls({SYS_mmap, ENOMEM, 3, MAP_ANONYMOUS})) {
      ::_exit(0);
    }
    // What jemalloc has mapped by now may serve a few.
    std::vector<std::unique_ptr<SlabArenas>> made;
    for (int i = 0; i < 64; ++i) {
      made.push_back(std::make_unique<SlabArenas>());
      if (const Status opened = made.back()->open(memory, table); !opened.ok()) {
        const bool told = opened.error().code == Errc::kNoMemory &&
                          std::string(opened.error().what) == "creating an arena of jemalloc";
        made.clear();
        ::_exit(told && memory.held() == 0 ? 0 : 1);
      }
    }
    ::_exit(2);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a CPU for which jemalloc has no cache serves objects without one") {
  const auto ending = keel_test::run_in_child([] {
    Rig rig;
    unsigned cache = 0;
    std::size_t bytes = sizeof cache;
    // All that there can be.
    while (keel_je_mallctl("tcache.create", &cache, &bytes, nullptr, 0) == 0) {
    }
    void* first = rig.kmalloc->allocate(64, 1);
    void* second = rig.kmalloc->allocate(64, 2);
    const bool served = first != nullptr && second != nullptr && first != second &&
                        rig.kmalloc->find(second).tag == 2 &&
                        rig.kmalloc->free(first).outcome == KmallocOutcome::kOk &&
                        rig.kmalloc->free(second).outcome == KmallocOutcome::kOk;
    (void)rig.kmalloc->release();
    ::_exit(served && rig.memory.held() == 0 ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
}
