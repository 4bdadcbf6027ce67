// BufferCache: idle buffers, ready to be handed out again as they are, whichever tier made them.
//
// Two levels: a small stack per CPU and size class (cpu_stacks.h), and the depot that CPUs exchange
// batches through (depot.h). A buffer that is freed on one CPU and wanted on another so costs a
// share of one lock and not one of its own.
//
// I1 What lies in the cache is no caller's; its frames count as allocated in the page allocator.
// I2 Bounded: the CPUs' limits together and the depot each have a budget, a share of what is
//    populated (set_budget); what is above goes to the Evictor. One put may pass the depot's budget
//    while it is at it.
// I3 A CPU's limit for a class rises when the class misses or overflows there, at the cost of
//    classes that leave theirs unused. A CPU that only frees keeps no more than a batch.
// Locks: kCacheGrants per CPU for limits; kCacheDrain for drains, one at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "counters.h"
#include "cpu_stacks.h"
#include "depot.h"
#include "keel/base/mutex.h"
#include "keel/base/percpu.h"

namespace keel {

// Takes back what the cache has no room for. Called without the cache's locks, but for kCacheDrain
// by a drain.
class Evictor {
 public:
  virtual void evict(std::span<const Pfn> buffers) = 0;
  // Idle buffers that an allocation had in its hands lie in the cache again; a drain that crossed
  // it has missed them.
  virtual void note_returned() = 0;
  [[nodiscard]] virtual Tier tier_of(Pfn buffer) const = 0;
  [[nodiscard]] virtual Pages pages_of(Pfn buffer) const = 0;

 protected:
  ~Evictor() = default;
};

struct CacheStats {
  Pages in_cpus{};
  Pages in_depot{};
  std::uint64_t hits = 0;       // takes that the CPU's stack served
  std::uint64_t puts = 0;       // buffers that callers put in
  std::uint64_t refills = 0;    // takes that the depot served
  std::uint64_t misses = 0;     // takes that nothing here could serve
  std::uint64_t overflows = 0;  // puts that a CPU's stack had no room for
  std::uint64_t evictions = 0;  // buffers given to the Evictor
};

class BufferCache {
 public:
  BufferCache(Evictor& evictor, PoolCounters& counters) : evictor_(evictor), counters_(counters) {}
  BufferCache(const BufferCache&) = delete;
  BufferCache& operator=(const BufferCache&) = delete;

  [[nodiscard]] Status open(CpuStacks::Engine engine = CpuStacks::Engine::kBest);

  // The fast half: this CPU's stack alone.
  [[nodiscard]] std::uint32_t pop(unsigned size_class) { return stacks_.pop(size_class); }
  [[nodiscard]] bool push(unsigned size_class, std::uint32_t frame) {
    return stacks_.push(size_class, frame);
  }
  // The slow half: after pop() found nothing; CpuStacks::kNone if the depot has nothing either.
  // Takes the pages that are asked for, from 1 to kMaxClassPages.
  [[nodiscard]] std::uint32_t refill(Pages wanted);
  // After push() found no room.
  void overflow(unsigned size_class, std::uint32_t frame);

  // Takes a buffer of no class, to be evicted together with a few others; so that one lock and the
  // lines that it guards are fetched for all of them. False if it is too large to be kept so.
  [[nodiscard]] bool defer(std::uint32_t frame, Pages held);

  // Sets how much may lie idle, from what is populated. 0: nothing is kept from now on. `full`: no
  // more can be populated, so what lies idle costs no memory beside; the next to need it drains it.
  void set_budget(Pages populated, bool full = false);

  // Gives everything to the Evictor and takes all limits back; returns what it gave.
  Pages drain() KEEL_EXCLUDES(drain_lock_);
  // Gives what nobody used since the last call.
  Pages drain_idle() KEEL_EXCLUDES(drain_lock_);
  // Gives at least `wanted` if there is so much, from the depot first.
  Pages shrink(Pages wanted) KEEL_EXCLUDES(drain_lock_);

  [[nodiscard]] Pages idle_pages() const;
  [[nodiscard]] Pages depot_pages() const { return depot_.pages(); }
  [[nodiscard]] CacheStats stats() const;
  [[nodiscard]] const CpuStacks& stacks() const { return stacks_; }

  // Calls visit(size_class, frame) for every buffer; kSizeClasses for those of no class. Needs a
  // quiet cache.
  template <class Visit>
  void for_each(Visit&& visit) KEEL_EXCLUDES(drain_lock_);

 private:
  static constexpr unsigned kBatch = 16;
  static constexpr unsigned kOutbox = kSizeClasses;  // the stack of deferred buffers
  static constexpr unsigned kOutboxDepth = 4;

  struct Cpu {
    Mutex lock{LockRank::kCacheGrants, Mutex::Wait::kSpin};
    Pages granted KEEL_GUARDED_BY(lock){};
    unsigned hand KEEL_GUARDED_BY(lock) = 0;  // next class to lose unused room
    // Classes that were asked for here lately. Relaxed: a hint about where buffers are of use.
    std::array<std::atomic<bool>, kSizeClasses> wanted{};
    // Of each class, what pops() and pushes() were at the last drain_idle().
    std::array<std::uint64_t, CpuStacks::kStacks> seen KEEL_GUARDED_BY(lock){};
  };

  void grant(unsigned id, unsigned size_class, unsigned wanted);
  [[nodiscard]] bool reclaim_grant(Cpu& cpu, unsigned id, unsigned wanted_by)
      KEEL_REQUIRES(cpu.lock);
  [[nodiscard]] std::uint32_t take_large(Pages wanted);
  [[nodiscard]] std::uint32_t take_fitting(unsigned size_class, Pages wanted);
  void count_excess(PoolCount count, unsigned size_class, std::span<const Pfn> buffers);
  void store(unsigned size_class, std::span<const Pfn> buffers);
  void trim_depot();
  void evict(std::span<const Pfn> buffers);
  Pages evict_deferred(std::span<const Pfn> buffers);
  Pages drain_cpu(unsigned cpu, bool idle_only) KEEL_REQUIRES(drain_lock_);
  Pages drain_depot_class(unsigned size_class);

  Evictor& evictor_;
  PoolCounters& counters_;
  CpuStacks stacks_;
  Depot depot_;
  PerCpu<Cpu> cpus_;
  Mutex drain_lock_{LockRank::kCacheDrain};
  // Budgets in pages; relaxed, since they publish nothing.
  std::atomic<std::uint64_t> cpu_budget_{0};
  std::atomic<std::uint64_t> depot_budget_{0};
};

template <class Visit>
void BufferCache::for_each(Visit&& visit) {
  MutexLock one_at_a_time(drain_lock_);
  for (unsigned c = 0; c < kSizeClasses; ++c) {
    depot_.for_each(c, [&](Pfn frame) { visit(c, frame); });
  }
  for (unsigned cpu = 0; cpu < stacks_.cpus(); ++cpu) {
    CpuStacks::Stopped stopped(stacks_, cpu);
    for (unsigned c = 0; c < CpuStacks::kStacks; ++c) {
      for (unsigned i = 0; i < stopped.count(c); ++i) {
        visit(c, Pfn(stopped.at(c, i)));
      }
    }
  }
}

}  // namespace keel
