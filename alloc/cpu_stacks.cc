#include "cpu_stacks.h"

#include <linux/membarrier.h>
#include <sys/mman.h>

#include <cstring>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/base/thread.h"

namespace keel {
namespace {

#if KEEL_CPU_STACKS_RSEQ
// The thread has a registered area, and others can be made to leave their sequences.
bool rseq_works() {
  if (__rseq_size == 0 || thread_scheduler() != nullptr) {  // A scheduler says what a CPU is.
    return false;
  }
  const auto* area = reinterpret_cast<const volatile struct rseq*>(rseq_stack::area());
  return static_cast<std::int32_t>(area->cpu_id) >= 0 &&
         os().membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) == 0;
}
#else
bool rseq_works() { return false; }
#endif

}  // namespace

Status CpuStacks::open(Engine engine) {
  cpus_ = possible_cpus();
  void* mapped = nullptr;
  const std::size_t bytes = cpus_ * kSlabBytes;
  const int error = os().mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the CPU caches, bytes", bytes);
  }
  base_ = static_cast<std::byte*>(mapped);
#if KEEL_CPU_STACKS_RSEQ
  static_assert(offsetof(Slab, stopped) == rseq_stack::kStopped);
  static_assert(offsetof(Slab, heads) == rseq_stack::kHeads);
  static_assert(offsetof(Slab, items) == rseq_stack::kItems);
  static_assert(offsetof(Slab, pops) == rseq_stack::kPops);
  static_assert(offsetof(Slab, pushes) == rseq_stack::kPushes);
#endif
  use_rseq_ = engine == Engine::kBest && rseq_works();
  return {};
}

CpuStacks::~CpuStacks() {
  if (base_ != nullptr) {
    (void)os().munmap(base_, cpus_ * kSlabBytes);  // Cannot be helped if it fails.
  }
}

// Without rseq ------------------------------------------------------------------------------------

// Acquire pairs with the release of whoever had the CPU's lock before, a Stopped included.
CpuStacks::Slab* CpuStacks::try_lock_local() {
  Slab& mine = slab(current_cpu());
  if (mine.locked.exchange(1, std::memory_order_acquire) != 0) {
    return nullptr;
  }
  return &mine;
}

std::uint32_t CpuStacks::locked_pop(unsigned size_class) {
  Slab* mine = try_lock_local();
  if (mine == nullptr) {
    return kNone;
  }
  Head& head = mine->heads[size_class];
  const unsigned count = head.count.load(std::memory_order_relaxed);  // Under the lock.
  std::uint32_t item = kNone;
  if (count != 0) {
    item = mine->items[size_class][count - 1];
    head.count.store(static_cast<std::uint16_t>(count - 1), std::memory_order_relaxed);  // Same.
    mine->pops[size_class].fetch_add(1, std::memory_order_relaxed);  // A count only.
  }
  mine->locked.store(0, std::memory_order_release);  // Pairs with try_lock_local.
  return item;
}

bool CpuStacks::locked_push(unsigned size_class, std::uint32_t item) {
  Slab* mine = try_lock_local();
  if (mine == nullptr) {
    return false;
  }
  Head& head = mine->heads[size_class];
  const unsigned count = head.count.load(std::memory_order_relaxed);     // Under the lock.
  const bool fits = count < head.limit.load(std::memory_order_relaxed);  // A hint is enough.
  if (fits) {
    mine->items[size_class][count] = item;
    head.count.store(static_cast<std::uint16_t>(count + 1), std::memory_order_relaxed);  // Same.
    mine->pushes[size_class].fetch_add(1, std::memory_order_relaxed);  // A count only.
  }
  mine->locked.store(0, std::memory_order_release);  // Pairs with try_lock_local.
  return fits;
}

// Limits and counts -------------------------------------------------------------------------------

void CpuStacks::set_limit(unsigned cpu, unsigned size_class, unsigned limit) {
  KEEL_CHECK(limit <= kDepth, "limit of a CPU cache", limit);
  // Relaxed: a push may go by the old one.
  slab(cpu).heads[size_class].limit.store(static_cast<std::uint16_t>(limit),
                                          std::memory_order_relaxed);
}

unsigned CpuStacks::limit(unsigned cpu, unsigned size_class) const {
  return slab(cpu).heads[size_class].limit.load(std::memory_order_relaxed);  // A hint.
}

unsigned CpuStacks::count(unsigned cpu, unsigned size_class) const {
  return slab(cpu).heads[size_class].count.load(std::memory_order_relaxed);  // A hint.
}

std::uint64_t CpuStacks::pops(unsigned size_class) const {
  std::uint64_t sum = 0;
  for (unsigned cpu = 0; cpu < cpus_; ++cpu) {
    sum += slab(cpu).pops[size_class].load(std::memory_order_relaxed);  // A count only.
  }
  return sum;
}

std::uint64_t CpuStacks::pushes(unsigned size_class) const {
  std::uint64_t sum = 0;
  for (unsigned cpu = 0; cpu < cpus_; ++cpu) {
    sum += slab(cpu).pushes[size_class].load(std::memory_order_relaxed);  // A count only.
  }
  return sum;
}

// Stopped -----------------------------------------------------------------------------------------

CpuStacks::Stopped::Stopped(CpuStacks& stacks, unsigned cpu) : stacks_(stacks), cpu_(cpu) {
  Slab& other = stacks_.slab(cpu);
  if (!stacks_.use_rseq_) {
    // Held for a few instructions only, but its holder may have been preempted.
    while (other.locked.exchange(1, std::memory_order_acquire) != 0) {  // Pairs with the release.
      yield_thread();
    }
    return;
  }
  // seq_cst: before the barrier below, on all CPUs.
  const std::uint32_t before = other.stopped.exchange(1, std::memory_order_seq_cst);
  KEEL_ASSERT(before == 0, "a CPU is stopped twice", cpu);
  // Sequences under way on that CPU begin anew and find it stopped. Registered in open(), so that
  // it cannot fail.
  const int error = os().membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU,
                                    static_cast<int>(cpu));
  KEEL_CHECK(error == 0, "membarrier", static_cast<std::uint64_t>(-error));
}

CpuStacks::Stopped::~Stopped() {
  Slab& other = stacks_.slab(cpu_);
  // Release: what was taken away stays away for the next on that CPU. Pairs with try_lock_local, or
  // with the sequence's load of `stopped` (x86 loads acquire).
  (stacks_.use_rseq_ ? other.stopped : other.locked).store(0, std::memory_order_release);
}

unsigned CpuStacks::Stopped::count(unsigned size_class) const {
  return stacks_.count(cpu_, size_class);
}

std::uint32_t CpuStacks::Stopped::at(unsigned size_class, unsigned index) const {
  return stacks_.slab(cpu_).items[size_class][index];
}

std::uint32_t CpuStacks::Stopped::take_oldest(unsigned size_class) {
  Slab& other = stacks_.slab(cpu_);
  const unsigned left = count(size_class);
  if (left == 0) {
    return kNone;
  }
  std::uint32_t* items = other.items[size_class];
  const std::uint32_t item = items[0];
  std::memmove(items, items + 1, (left - 1) * sizeof(*items));
  other.heads[size_class].count.store(static_cast<std::uint16_t>(left - 1),
                                      std::memory_order_relaxed);  // Nobody else looks: I3.
  return item;
}

}  // namespace keel
