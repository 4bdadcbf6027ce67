// CpuStacks: for every CPU one small LIFO stack of frame numbers per size class.
//
// A push or pop works on the stacks of the CPU that the thread runs on. Where the C library has
// registered restartable sequences (rseq), it is a handful of plain instructions that the kernel
// restarts if the thread is preempted or moved within them: no lock, no atomic instruction. Else
// (other processors, ThreadSanitizer, Valgrind) each CPU has a lock that is tried once and never
// waited for.
//
// I1 push() and pop() never wait: full, empty, busy and stopped are all just "no".
// I2 A stack never holds more than its limit had allowed when the item was pushed.
// I3 While a CPU is stopped (Stopped) nobody else touches its stacks.
// Memory order: an item is handed from thread to thread on one CPU (the kernel's switch orders
//    that), or under the lock, or through Stopped, whose membarrier and lock order it.
// Source: P. Turner, "PerCpu Atomics" (LPC 2013); Linux rseq(2), membarrier(2).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "keel/base/percpu.h"
#include "keel/base/result.h"
#include "rseq_stack.h"
#include "size_class.h"

namespace keel {

class CpuStacks {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  static constexpr unsigned kDepth = 32;
  // One for each size class, and one for buffers that are on their way back (BufferCache::defer).
  static constexpr unsigned kStacks = kSizeClasses + 1;

  CpuStacks() = default;
  ~CpuStacks();
  CpuStacks(const CpuStacks&) = delete;
  CpuStacks& operator=(const CpuStacks&) = delete;

  // kBest: rseq where it works. kLocked is for tests.
  enum class Engine : std::uint8_t { kBest, kLocked };

  // Maps and populates the stacks, all limits 0. Errors: kNoMemory, kSystem.
  [[nodiscard]] Status open(Engine engine = Engine::kBest);

  // The item last pushed on this CPU's stack; kNone if there is none, or it cannot be had now.
  [[nodiscard]] std::uint32_t pop(unsigned size_class) {
#if KEEL_CPU_STACKS_RSEQ
    if (use_rseq_) [[likely]] {
      return rseq_stack::pop(base_, cpus_, size_class);
    }
#endif
    return locked_pop(size_class);
  }
  // False if the stack is at its limit, or cannot be had now.
  [[nodiscard]] bool push(unsigned size_class, std::uint32_t item) {
#if KEEL_CPU_STACKS_RSEQ
    if (use_rseq_) [[likely]] {
      return rseq_stack::push(base_, cpus_, size_class, item);
    }
#endif
    return locked_push(size_class, item);
  }

  // At most kDepth. Items above a lowered limit stay until they are popped.
  void set_limit(unsigned cpu, unsigned size_class, unsigned limit);
  [[nodiscard]] unsigned limit(unsigned cpu, unsigned size_class) const;
  // Items on a stack, as of lately.
  [[nodiscard]] unsigned count(unsigned cpu, unsigned size_class) const;

  // Pops and pushes of one CPU's stack, as of lately.
  [[nodiscard]] std::uint64_t uses(unsigned cpu, unsigned size_class) const {
    return slab(cpu).pops[size_class].load(std::memory_order_relaxed) +   // Counts only.
           slab(cpu).pushes[size_class].load(std::memory_order_relaxed);  // Same.
  }
  // Items that went through all stacks of a class; a few may be counted twice or lost.
  [[nodiscard]] std::uint64_t pops(unsigned size_class) const;
  [[nodiscard]] std::uint64_t pushes(unsigned size_class) const;

  [[nodiscard]] unsigned cpus() const { return cpus_; }
  [[nodiscard]] bool uses_rseq() const { return use_rseq_; }

  // Holds one CPU's stacks still: threads on that CPU find them unavailable meanwhile. Not for the
  // same CPU twice at a time. Threads: any.
  class Stopped {
   public:
    Stopped(CpuStacks& stacks, unsigned cpu);
    ~Stopped();
    Stopped(const Stopped&) = delete;
    Stopped& operator=(const Stopped&) = delete;
    // Takes the oldest item away; kNone if there is none.
    [[nodiscard]] std::uint32_t take_oldest(unsigned size_class);
    [[nodiscard]] std::uint32_t at(unsigned size_class, unsigned index) const;
    [[nodiscard]] unsigned count(unsigned size_class) const;

   private:
    CpuStacks& stacks_;
    const unsigned cpu_;
  };

 private:
  struct Head {
    std::atomic<std::uint16_t> count;
    std::atomic<std::uint16_t> limit;
  };
  struct alignas(kCacheLinePairBytes) Slab {
    std::atomic<std::uint32_t> stopped;  // 1: hands off
    std::atomic<std::uint32_t> locked;   // 1: held by a thread that does without rseq
    Head heads[kStacks];
    alignas(kCacheLinePairBytes) std::uint32_t items[kStacks][kDepth];
    std::atomic<std::uint64_t> pops[kStacks];
    std::atomic<std::uint64_t> pushes[kStacks];
  };
  static constexpr std::size_t kSlabBytes = 16384;
  static_assert(sizeof(Slab) <= kSlabBytes);

  [[nodiscard]] Slab& slab(unsigned cpu) const {
    return *reinterpret_cast<Slab*>(base_ + cpu * kSlabBytes);
  }
  [[nodiscard]] std::uint32_t locked_pop(unsigned size_class);
  [[nodiscard]] bool locked_push(unsigned size_class, std::uint32_t item);
  [[nodiscard]] Slab* try_lock_local();

#if KEEL_CPU_STACKS_RSEQ
  static_assert(kSlabBytes == std::size_t{1} << rseq_stack::kSlabShift);
  static_assert(sizeof(Head) == 4 && kDepth * sizeof(std::uint32_t) == rseq_stack::kStride);
#endif

  std::byte* base_ = nullptr;
  unsigned cpus_ = 0;
  bool use_rseq_ = false;
};

}  // namespace keel
