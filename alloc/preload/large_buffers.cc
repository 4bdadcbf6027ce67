#include "large_buffers.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "keel/alloc/pool.h"
#include "keel/base/os.h"
#include "keel_jemalloc.h"

namespace keel::preload {

constinit PageMarks pool_pages;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr AllocFlags kFlags = AllocFlags::kNoWarn;
constexpr const char* kOwner = "malloc";

enum class State : int {
  kEarly,  // this library's constructors have not run
  kNone,
  kMaking,
  kReady,
  kRefused,  // by the system, or in a forked child
};

constinit std::atomic<State> state{State::kEarly};
constinit std::atomic<Pool*> the_pool{nullptr};
constinit std::atomic<bool> forked{false};
constinit std::atomic<std::uint64_t> served{0};
constinit std::atomic<std::uint64_t> passed_on{0};
constinit thread_local bool inside = false;

// While it lives, what this thread allocates is not the pool's.
class Inside {
 public:
  Inside() { inside = true; }
  ~Inside() { inside = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// The pool's own threads have no Inside; their metadata must not come from the pool either.
class MetadataFromJemalloc final : public Os {
  void* metadata_allocate(std::size_t bytes) override { return keel_je_malloc(bytes); }
  void metadata_free(void* address) override { keel_je_free(address); }
};

PoolConfig config_from_environment() {
  PoolConfig config;
  if (const char* capacity = std::getenv("KEEL_MALLOC_CAPACITY")) {
    config.capacity_bytes = std::strtoull(capacity, nullptr, 0);
  }
  return config;
}

// Neither is ever destroyed: buffers are freed until the process ends.
Pool* make_pool() {
  alignas(MetadataFromJemalloc) static std::byte system[sizeof(MetadataFromJemalloc)];
  alignas(ScopedOs) static std::byte scope[sizeof(ScopedOs)];
  new (scope) ScopedOs(*new (system) MetadataFromJemalloc);
  if (!pool_pages.open() ||
      pthread_atfork(nullptr, nullptr, [] { forked.store(true, kRelaxed); }) != 0) {
    return nullptr;
  }
  auto made = Pool::create(config_from_environment());
  return made ? std::move(*made).release() : nullptr;
}

// The pool, if it can be asked now.
Pool* pool_now() {
  if (inside || forked.load(kRelaxed)) {
    return nullptr;
  }
  // Acquire pairs with the release below: the pool is whole for who sees it.
  if (Pool* pool = the_pool.load(std::memory_order_acquire)) [[likely]] {
    return pool->owned_by_this_process() ? pool : nullptr;
  }
  State expected = State::kNone;
  if (!state.compare_exchange_strong(expected, State::kMaking, kRelaxed)) {
    return nullptr;
  }
  Inside guard;
  Pool* pool = make_pool();
  the_pool.store(pool, std::memory_order_release);
  state.store(pool != nullptr ? State::kReady : State::kRefused, kRelaxed);
  return pool;
}

__attribute__((constructor)) void now_in_order() { state.store(State::kNone, kRelaxed); }

__attribute__((destructor)) void tell_at_exit() {
  if (std::getenv("KEEL_MALLOC_STATS") != nullptr) {
    char line[128];
    const int length = std::snprintf(
        line, sizeof line,
        "keel-malloc: %" PRIu64 " large buffers from the pool, %" PRIu64 " passed on to jemalloc\n",
        served.load(kRelaxed), passed_on.load(kRelaxed));
    (void)!::write(STDERR_FILENO, line, static_cast<std::size_t>(length));
  }
}

void* note_served(void* address) {
  if (address == nullptr) {
    passed_on.fetch_add(1, kRelaxed);
    return nullptr;
  }
  served.fetch_add(1, kRelaxed);
  pool_pages.set(address);
  return address;
}

}  // namespace

void* allocate_large(std::size_t size, bool zero) {
  Pool* pool = pool_now();
  if (pool == nullptr) {
    return note_served(nullptr);
  }
  Inside guard;
  const int errno_before = errno;
  void* address = pool->kvmalloc(size, zero ? kFlags | AllocFlags::kZero : kFlags, kOwner);
  errno = errno_before;
  return note_served(address);
}

void free_large(void* address) {
  // First: freed, the address may be another thread's at once.
  pool_pages.clear(address);
  Pool* pool = the_pool.load(std::memory_order_acquire);
  if (!pool->owned_by_this_process()) {
    return;
  }
  const bool was_inside = inside;
  const int errno_before = errno;
  inside = true;
  pool->kvfree(address);
  inside = was_inside;
  errno = errno_before;
}

void* reallocate_large(void* address, std::size_t size) {
  Pool* pool = pool_now();
  if (pool == nullptr) {
    return note_served(nullptr);
  }
  Inside guard;
  const int errno_before = errno;
  // Its old place may be another thread's as soon as the buffer has moved.
  pool_pages.clear(address);
  void* moved = pool->kvrealloc(address, size, kFlags, kOwner);
  if (moved == nullptr) {
    pool_pages.set(address);
  }
  errno = errno_before;
  return note_served(moved);
}

std::size_t size_of_large(const void* address) {
  const Pool* pool = the_pool.load(std::memory_order_acquire);
  return pool->owned_by_this_process() ? pool->kvsize(address) : 0;
}

void note_small(const void* address) {
  if (forked.load(kRelaxed) && is_large(address)) [[unlikely]] {
    pool_pages.clear(address);
  }
}

}  // namespace keel::preload
