// Replaces the global operator new of this test program: an allocation inside a NoAllocScope is a
// reported bug, also one that does not go through keel (a std::function, a string); and a test may
// have it refuse.
#include <atomic>
#include <cstdlib>
#include <new>

#include "keel/base/scopes.h"
#include "new_refusal.h"

namespace keel_test {
namespace {

std::atomic<bool> armed{false};
std::atomic<bool> refuse_for_good{false};
std::atomic<std::int64_t> granted_before{0};
std::atomic<std::uint64_t> refusals{0};

}  // namespace

NewRefusal::NewRefusal(std::int64_t nth, bool for_good) {
  granted_before = nth;
  refuse_for_good = for_good;
  refusals = 0;
  armed = true;
}

NewRefusal::~NewRefusal() { armed = false; }

bool NewRefusal::refuses() {
  if (!armed) {
    return false;
  }
  const std::int64_t left = granted_before.fetch_sub(1);
  const bool refuse = left == 0 || (left < 0 && refuse_for_good);
  refusals += refuse ? 1 : 0;
  return refuse;
}

std::uint64_t NewRefusal::refused() { return refusals; }

}  // namespace keel_test

namespace {

void* allocate_or_null(std::size_t bytes) {
  (void)keel::check_allocation_allowed("operator new");
  return keel_test::NewRefusal::refuses() ? nullptr : std::malloc(bytes != 0 ? bytes : 1);
}

void* allocate(std::size_t bytes) {
  void* memory = allocate_or_null(bytes);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

void* allocate_aligned(std::size_t bytes, std::size_t alignment) {
  (void)keel::check_allocation_allowed("operator new");
  void* memory =
      keel_test::NewRefusal::refuses()
          ? nullptr
          : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate_aligned(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate_aligned(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate_or_null(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t& tag) noexcept {
  return operator new(bytes, tag);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
