#include "depot.h"

#include <algorithm>

namespace keel {

// Under the class's lock. Unsigned arithmetic: a difference below zero wraps and adds.
void Depot::account(unsigned size_class, unsigned taken, unsigned put) {
  if (taken != put) {
    const std::uint32_t change = (put - taken) * pages_of_class(size_class);
    const std::uint32_t held = by_class_[size_class].load(std::memory_order_relaxed) + change;
    by_class_[size_class].store(held, std::memory_order_relaxed);
    // Sign-extended. Relaxed, see the declarations.
    pages_.fetch_add(static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(change)}),
                     std::memory_order_relaxed);
  }
}

unsigned Depot::largest() const {
  unsigned most = 0;
  for (unsigned c = 1; c < kSizeClasses; ++c) {
    if (pages_of(c) > pages_of(most)) {
      most = c;
    }
  }
  return most;
}

unsigned Depot::take(unsigned size_class, std::span<Pfn> out) {
  Class& of = classes_[size_class];
  unsigned taken = 0;
  MutexLock lock(of.lock);
  for (const Tier tier : {Tier::kMapped, Tier::kContiguous}) {
    Shelf& shelf = of.shelves[static_cast<unsigned>(tier)];
    while (taken < out.size() && shelf.count != 0) {
      out[taken++] = shelf.items[--shelf.count];
    }
  }
  of.used = of.used || taken != 0;
  account(size_class, taken, 0);
  return taken;
}

unsigned Depot::put(unsigned size_class, Tier tier, std::span<const Pfn> buffers) {
  Class& of = classes_[size_class];
  MutexLock lock(of.lock);
  Shelf& shelf = of.shelves[static_cast<unsigned>(tier)];
  const unsigned fit = std::min(static_cast<unsigned>(buffers.size()), kShelfDepth - shelf.count);
  std::copy_n(buffers.begin(), fit, shelf.items.begin() + shelf.count);
  shelf.count += fit;
  account(size_class, 0, fit);
  return fit;
}

unsigned Depot::take_oldest(unsigned size_class, std::span<Pfn> out) {
  Class& of = classes_[size_class];
  unsigned taken = 0;
  MutexLock lock(of.lock);
  for (Shelf& shelf : of.shelves) {
    const unsigned from_here = std::min(static_cast<unsigned>(out.size()) - taken, shelf.count);
    std::copy_n(shelf.items.begin(), from_here, out.begin() + taken);
    std::copy(shelf.items.begin() + from_here, shelf.items.begin() + shelf.count,
              shelf.items.begin());
    shelf.count -= from_here;
    taken += from_here;
  }
  account(size_class, taken, 0);
  return taken;
}

bool Depot::was_idle(unsigned size_class) {
  Class& of = classes_[size_class];
  MutexLock lock(of.lock);
  const bool idle = !of.used;
  of.used = false;
  return idle;
}

}  // namespace keel
