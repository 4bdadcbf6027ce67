// What a caller does when the pool has nothing for it: one pass over all that can be had back.
#include "keel/base/check.h"
#include "keel/base/probes.h"
#include "pool_impl.h"

namespace keel {

// Idle buffers of all CPUs first: they cost nothing to lose. Shrinkers only where the caller's
// locks cannot be what they wait for.
void Pool::Impl::reclaim(const Request& request) {
  counters.add(PoolCount::kReclaims);
  KEEL_PROBE(reclaim, request.size_bytes, request.owner);
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

// Only a pool that cannot grow is exhausted until something is freed.
void Pool::Impl::mark_exhausted(Pages wanted) {
  if (pages->present_hint() < store->capacity()) {
    return;
  }
  exhausted_pages.store(wanted.value(), std::memory_order_relaxed);  // A hint.
  close_gate(kExhausted);  // So that frees come by and clear it.
}

void Pool::Impl::clear_exhausted() {
  if (is_any_exhausted()) {
    exhausted_pages.store(~std::uint64_t{0}, std::memory_order_relaxed);  // A hint.
    open_gate(kExhausted);
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
