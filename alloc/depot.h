// Depot: idle buffers of each size class that no CPU's cache has, the last returned first out.
//
// Buffers that are mapped in the window (chains) stand on a shelf of their own and are handed out
// first: a contiguous buffer that stays is worth more as free frames, a mapped one more as it is,
// since it cost system calls to make.
//
// I1 All that is on a shelf is idle (kCached, kCachedChain) and kept under its class
//    (kept_class_of); pages are counted as the class has them.
// I2 pages() is the sum over all shelves.
// Locks: one for each class (kCacheShelf), held for a few instructions.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "keel/base/mutex.h"
#include "keel/base/percpu.h"
#include "keel/base/units.h"
#include "size_class.h"

namespace keel {

enum class Tier : std::uint8_t { kContiguous, kMapped };

class Depot {
 public:
  static constexpr unsigned kShelfDepth = 256;

  // Takes up to `out.size()` buffers; gives how many.
  unsigned take(unsigned size_class, std::span<Pfn> out);
  // Puts buffers of one tier on their shelf; gives how many fit.
  unsigned put(unsigned size_class, Tier tier, std::span<const Pfn> buffers);
  // Takes the oldest, contiguous ones before mapped ones.
  unsigned take_oldest(unsigned size_class, std::span<Pfn> out);

  // True if nothing was taken from the class since this was last asked.
  [[nodiscard]] bool was_idle(unsigned size_class);

  [[nodiscard]] Pages pages() const {
    return Pages(pages_.load(std::memory_order_relaxed));  // A hint while others are at it.
  }
  [[nodiscard]] Pages pages_of(unsigned size_class) const {
    return Pages(by_class_[size_class].load(std::memory_order_relaxed));  // Same.
  }
  // The class that holds most.
  [[nodiscard]] unsigned largest() const;
  // Calls visit(frame) for each buffer. For audits.
  template <class Visit>
  void for_each(unsigned size_class, Visit&& visit) const;

 private:
  struct Shelf {
    unsigned count = 0;
    std::array<Pfn, kShelfDepth> items;  // the oldest first
  };
  struct alignas(kCacheLinePairBytes) Class {
    mutable Mutex lock{LockRank::kCacheShelf, Mutex::Wait::kSpin};
    bool used KEEL_GUARDED_BY(lock) = false;
    std::array<Shelf, 2> shelves KEEL_GUARDED_BY(lock);  // by tier
  };

  void account(unsigned size_class, unsigned taken, unsigned put);

  std::array<Class, kSizeClasses> classes_;
  // Relaxed: a bound that is checked against it may be passed by what is under way.
  alignas(kCacheLinePairBytes) std::atomic<std::uint64_t> pages_{0};
  std::array<std::atomic<std::uint32_t>, kSizeClasses> by_class_{};  // written under its lock
};

template <class Visit>
void Depot::for_each(unsigned size_class, Visit&& visit) const {
  const Class& of = classes_[size_class];
  MutexLock lock(of.lock);
  for (const Shelf& shelf : of.shelves) {
    for (unsigned i = 0; i < shelf.count; ++i) {
      visit(shelf.items[i]);
    }
  }
}

}  // namespace keel
