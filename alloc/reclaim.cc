// What a caller does when the pool has nothing for it: one pass over all that can be had back.
#include "keel/base/check.h"
#include "pool_impl.h"

namespace keel {

// Idle buffers of all CPUs first: they cost nothing to lose. Shrinkers only where the caller's
// locks cannot be what they wait for.
void Pool::Impl::reclaim(const Request& request) {
  counters.add(PoolCount::kReclaims);
  cache.drain();
  small->release();
  Pfn due;
  while (hardened.on() && hardened.take_due(due, true)) {
    const std::array<Pfn, 1> one{due};
    evict(one);
  }
  if (!has(request.flags, AllocFlags::kNoFs) && pages->free_hint() < request.pages) {
    bool waited = false;
    // What it gave shows in the free lists, as does what a pass that this one waited for did.
    (void)shrinkers.scan(Bytes(bytes_of(request.pages)), waited);
  }
}

// Only a pool that cannot grow is exhausted until something is freed. The gate is closed, so that
// frees come by and clear it; together with the marks, or a clearing between the two would leave
// one without the other. A pass that may not ask shrinkers says nothing to those that may.
void Pool::Impl::mark_exhausted(const Request& request) {
  if (pages->present_hint() < store->capacity()) {
    return;
  }
  MutexLock lock(gate_lock);
  exhausted_pages.store(request.pages.value(), std::memory_order_relaxed);  // A hint.
  if (!has(request.flags, AllocFlags::kNoFs)) {
    exhausted_with_shrinkers.store(request.pages.value(), std::memory_order_relaxed);  // Same.
  }
  gate |= kExhausted;
  fast->store(0, std::memory_order_relaxed);  // As in close_gate().
}

void Pool::Impl::clear_exhausted() {
  if (is_any_exhausted()) {
    MutexLock lock(gate_lock);
    exhausted_pages.store(kNotExhausted, std::memory_order_relaxed);           // A hint.
    exhausted_with_shrinkers.store(kNotExhausted, std::memory_order_relaxed);  // Same.
    gate &= ~std::uint32_t{kExhausted};
    fast->store(gate == 0 ? 1 : 0, std::memory_order_relaxed);  // As in open_gate().
  }
}

Status Pool::add_shrinker(Shrinker& shrinker) { return impl_->shrinkers.add(shrinker); }
void Pool::remove_shrinker(Shrinker& shrinker) { impl_->shrinkers.remove(shrinker); }

Status Pool::set_limit(const char* owner, Bytes limit) {
  const Status set = impl_->tags.set(owner, limit);
  if (set.ok()) {
    impl_->close_gate(Impl::kTagLimits);
  }
  return set;
}

}  // namespace keel
