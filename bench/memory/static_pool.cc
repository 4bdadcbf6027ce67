// The limit: a pool with all its memory set aside and touched before, powers of two, a stack under
// a spin lock for each size. LIFO, so a buffer comes back while it is still in the caches. It gives
// nothing back and holds what the worst moment could need: what an allocator would do that had to
// do nothing else.
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>

#include "keel/base/check.h"
#include "keel/base/units.h"
#include "memory/backend.h"

namespace keel::bench {
namespace {

constexpr std::size_t kClasses = 11;   // 4 KiB to 4 MiB
constexpr std::size_t kBuffers = 256;  // of a size up to 1 MiB; more than the workloads have live
constexpr std::size_t kLargeBuffers = 8;
constexpr std::size_t kBuffersEnd = 8;  // the last class with kBuffers: 1 MiB

class SpinLock {
 public:
  // Pairs with unlock(): what the holder before did to the stack is seen.
  void lock() {
    while (held_.exchange(true, std::memory_order_acquire)) {
      while (held_.load(std::memory_order_relaxed)) {
      }
    }
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

struct alignas(64) Stack {
  SpinLock lock;
  std::size_t count = 0;
  std::byte* start = nullptr;
  std::array<void*, kBuffers> buffers{};
};

constexpr std::size_t bytes_of_class(std::size_t index) { return kPageBytes << index; }

class StaticPool {
 public:
  StaticPool() {
    for (std::size_t i = 0; i < kClasses; ++i) {
      fill(stacks_[i], bytes_of_class(i), i <= kBuffersEnd ? kBuffers : kLargeBuffers);
    }
  }

  void* allocate(std::size_t bytes) {
    Stack& stack = stacks_[std::bit_width((bytes - 1) >> kPageShift)];
    stack.lock.lock();
    KEEL_CHECK(stack.count != 0, "the static pool is too small for this workload", bytes);
    void* buffer = stack.buffers[--stack.count];
    stack.lock.unlock();
    return buffer;
  }

  void free(void* buffer) {
    std::size_t index = kClasses - 1;
    while (buffer < stacks_[index].start) {
      --index;
    }
    Stack& stack = stacks_[index];
    stack.lock.lock();
    stack.buffers[stack.count++] = buffer;
    stack.lock.unlock();
  }

 private:
  // Classes lie one above the other in one range, so that free() finds a buffer's by its address.
  void fill(Stack& stack, std::size_t bytes, std::size_t count) {
    if (next_ == nullptr) {
      std::size_t total = 0;
      for (std::size_t i = 0; i < kClasses; ++i) {
        total += bytes_of_class(i) * (i <= kBuffersEnd ? kBuffers : kLargeBuffers);
      }
      void* range =
          ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      KEEL_CHECK(range != MAP_FAILED, "map the static pool");
      ::madvise(range, total, MADV_HUGEPAGE);
      KEEL_CHECK(::madvise(range, total, MADV_POPULATE_WRITE) == 0, "populate the static pool");
      next_ = static_cast<std::byte*>(range);
    }
    stack.start = next_;
    for (; stack.count < count; ++stack.count, next_ += bytes) {
      stack.buffers[stack.count] = next_;
    }
  }

  std::array<Stack, kClasses> stacks_;
  std::byte* next_ = nullptr;
};

StaticPool& pool() {
  static StaticPool instance;
  return instance;
}

}  // namespace

const Backend& static_backend() {
  static constexpr Backend kBackend{"static",
                                    [](std::size_t bytes) { return pool().allocate(bytes); },
                                    [](void* buffer) { pool().free(buffer); }};
  (void)pool();
  return kBackend;
}

}  // namespace keel::bench
