#include "depot.h"

#include <algorithm>

namespace keel {

void Depot::account(unsigned size_class, unsigned before, unsigned after) {
  if (before != after) {
    // Relaxed, see the declaration. Unsigned arithmetic: a difference below zero wraps and adds.
    pages_.fetch_add((std::uint64_t{after} - before) * pages_of_class(size_class),
                     std::memory_order_relaxed);
  }
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

unsigned Depot::count(unsigned size_class) const {
  const Class& of = classes_[size_class];
  MutexLock lock(of.lock);
  return of.shelves[0].count + of.shelves[1].count;
}

}  // namespace keel
