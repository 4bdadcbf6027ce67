// What AddressSanitizer says of wrong use of buffers. Nothing to test in other builds.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "poison.h"
#include "support/death.h"

using namespace keel;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kBytes = 5000;  // not whole pages: what lies behind is nobody's

void touch(char* at) { *static_cast<volatile char*>(at) = 1; }

// From here on buffers of more than a page are mapped.
void scatter(Pool& pool) {
  std::vector<void*> pages;
  while (void* page = pool.kvmalloc(kPageBytes, AllocFlags::kNoWarn)) {
    pages.push_back(page);
  }
  for (std::size_t i = 0; i < pages.size(); i += 2) {
    pool.kvfree(pages[i]);
  }
}

// `use` in a child, with a pool of its own: a parent's is not inherited.
keel_test::Ending end_of(bool mapped, const std::function<void(Pool&, char*)>& use) {
  return keel_test::run_in_child([&] {
    auto pool =
        Pool::create({.capacity_bytes = 2 * kMiB, .window_bytes = 64 * kMiB, .background = false});
    if (mapped) {
      scatter(**pool);
    }
    auto* buffer = static_cast<char*>((*pool)->kvmalloc(kBytes));
    KEEL_CHECK((*pool)->is_contiguous(buffer) != mapped, "the tier that was to be tested");
    use(**pool, buffer);
  });
}

bool is_reported(const keel_test::Ending& ending) {
  return ending.exit_code != 0 &&
         ending.errors.find("AddressSanitizer: use-after-poison") != std::string::npos;
}

}  // namespace

TEST_CASE("AddressSanitizer ends a program that uses a buffer after kvfree" *
          doctest::skip(!kPoisons)) {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    CHECK(is_reported(end_of(mapped, [](Pool& pool, char* buffer) {
      pool.kvfree(buffer);
      touch(buffer);
    })));
  }
}

TEST_CASE("AddressSanitizer ends a program that writes past a buffer's end" *
          doctest::skip(!kPoisons)) {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    CHECK(is_reported(end_of(mapped, [](Pool&, char* buffer) { touch(buffer + kBytes); })));
  }
}

TEST_CASE("AddressSanitizer ends a program that uses memory that was never a buffer's" *
          doctest::skip(!kPoisons)) {
  CHECK(is_reported(end_of(false, [](Pool&, char* buffer) { touch(buffer + 32 * kPageBytes); })));
}

TEST_CASE("AddressSanitizer ends a program that writes to what a buffer has given up in place" *
          doctest::skip(!kPoisons)) {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    CHECK(is_reported(end_of(mapped, [](Pool& pool, char* buffer) {
      auto* smaller = static_cast<char*>(pool.kvrealloc(buffer, kBytes - 500));
      KEEL_CHECK(smaller == buffer, "shrunk in place");
      touch(smaller + kBytes - 1);
    })));
  }
}

TEST_CASE("AddressSanitizer ends a program that uses a hardened pool's buffer after kvfree" *
          doctest::skip(!kPoisons)) {
  CHECK(is_reported(keel_test::run_in_child([] {
    auto pool = Pool::create({.capacity_bytes = 2 * kMiB,
                              .window_bytes = 64 * kMiB,
                              .background = false,
                              .hardened = true});
    auto* buffer = static_cast<char*>((*pool)->kvmalloc(kBytes));
    (*pool)->kvfree(buffer);
    touch(buffer);
  })));
}

TEST_CASE("AddressSanitizer ends a program that uses a small object's page after it went back" *
          doctest::skip(!kPoisons)) {
  CHECK(is_reported(end_of(false, [](Pool& pool, char*) {
    KEEL_CHECK(pool.reserve(Bytes(kMiB)).ok(), "memory for slabs");
    std::vector<char*> objects(1000);
    for (char*& object : objects) {
      object = static_cast<char*>(pool.kvmalloc(64));
      KEEL_CHECK(pool.kvsize(object) == 64, "a page in place of an object");
    }
    for (char* object : objects) {
      pool.kvfree(object);
    }
    (void)pool.trim();  // Which releases slabs.
    for (char* object : objects) {
      touch(object);
    }
  })));
}

TEST_CASE("AddressSanitizer lets the addresses of a pool that is gone be used again" *
          doctest::skip(!kPoisons)) {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    const auto ending = keel_test::run_in_child([mapped] {
      auto pool = Pool::create(
          {.capacity_bytes = 2 * kMiB, .window_bytes = 64 * kMiB, .background = false});
      if (mapped) {
        scatter(**pool);
      }
      auto* buffer = static_cast<char*>((*pool)->kvmalloc(kBytes));
      (*pool)->kvfree(buffer);
      pool->reset();
      char* const page = buffer - reinterpret_cast<std::uintptr_t>(buffer) % kPageBytes;
      void* const again = ::mmap(page, 2 * kPageBytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
      KEEL_CHECK(again == page, "the pool's addresses are free again");
      touch(buffer);
      touch(buffer + kBytes);
    });
    CHECK(ending.exit_code == 0);
    CHECK(ending.errors.empty());
  }
}

TEST_CASE("AddressSanitizer says nothing of right use" * doctest::skip(!kPoisons)) {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    const auto ending = end_of(mapped, [](Pool& pool, char* buffer) {
      touch(buffer + kBytes - 1);
      auto* larger = static_cast<char*>(pool.kvrealloc(buffer, kBytes + 1000));
      touch(larger + kBytes + 999);
      touch(larger + pool.kvsize(larger) - 1);
      pool.kvfree(larger);
      auto* zeroed = static_cast<char*>(pool.kvmalloc(kBytes, AllocFlags::kZero));
      touch(zeroed + kBytes - 1);
      touch(zeroed + pool.kvsize(zeroed) - 1);
      pool.kvfree(zeroed);
      // From this CPU's cache, with nothing asked of its content; then moved to a larger place.
      auto* again = static_cast<char*>(pool.kvmalloc(kBytes));
      touch(again);
      touch(again + kBytes - 1);
      auto* moved = static_cast<char*>(pool.kvrealloc(again, 10 * kBytes));
      touch(moved + 10 * kBytes - 1);
      pool.kvfree(moved);
      if (auto* small = static_cast<char*>(pool.kvmalloc(64)); small != nullptr) {
        touch(small + 63);
        pool.kvfree(small);
      }
    });
    CHECK(ending.exit_code == 0);
    CHECK(ending.errors.empty());
  }
}
