#include "tags.h"

#include <cstring>

namespace keel {

Status TagLimits::set(const char* owner, Bytes limit) {
  MutexLock lock(lock_);
  const unsigned count = count_.load(std::memory_order_relaxed);  // Written under the lock.
  unsigned tag = find(owner);
  if (tag == kUnlimited) {
    if (count == kMost) {
      return Error{Errc::kNoMemory, 0, "owners that have limits", kMost};
    }
    tag = count;
    tags_[tag].owner = owner;
  }
  tags_[tag].limit.store(limit.value(), std::memory_order_relaxed);  // Holds from the next charge.
  if (tag == count) {
    count_.store(count + 1, std::memory_order_release);  // Pairs with find's and any's acquire.
  }
  return {};
}

unsigned TagLimits::find_among(unsigned count, const char* owner) const {
  for (unsigned i = 0; i < count; ++i) {
    if (tags_[i].owner == owner || std::strcmp(tags_[i].owner, owner) == 0) {
      return i;
    }
  }
  return kUnlimited;
}

bool TagLimits::charge(unsigned tag, std::uint64_t bytes) {
  Tag& of = tags_[tag];
  const std::uint64_t limit = of.limit.load(std::memory_order_relaxed);  // A number only.
  std::uint64_t held = of.held.load(std::memory_order_relaxed);          // Same.
  do {
    if (held + bytes > limit) {
      return false;
    }
  } while (!of.held.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  return true;
}

void TagLimits::uncharge(unsigned tag, std::uint64_t bytes) {
  tags_[tag].held.fetch_sub(bytes, std::memory_order_relaxed);  // A number only.
}

}  // namespace keel
