// What a caller does when the pool has nothing for it: one pass over all that can be had back.
#include "keel/base/check.h"
#include "keel/base/probes.h"
#include "pool_impl.h"

namespace keel {

// Idle buffers of all CPUs first: they cost nothing to lose. Shrinkers only where the caller's
// locks cannot be what they wait for. True if there is enough then, or shrinkers gave as much: who
// does not find it has lost it to others.
bool Pool::Impl::reclaim(const Request& request, bool shares) {
  counters.add(PoolCount::kReclaims);
  KEEL_PROBE(reclaim, request.size_bytes, request.owner);
  cache.drain();
  small->release();
  Pfn due;
  while (hardened.on() && hardened.take_due(due, true)) {
    evict_one(due);
  }
  if (pages->free_hint() >= request.pages) {
    return true;
  }
  if (has(request.flags, AllocFlags::kNoFs)) {
    return false;
  }
  // What it gave shows in the free lists, as does what one that this one waited for did.
  const Bytes wanted{bytes_of(request.pages)};
  const std::optional<Bytes> given = shrinkers.scan(wanted, shares);
  return !given || *given >= wanted;
}

// Shortage ----------------------------------------------------------------------------------------
//
// Requests are refused at once only after a pass that found nothing, and only if nothing was freed
// since that pass began. While one is under way others are not refused: they make their own, wait
// for the first one's drain and shrinkers, and ask for themselves if those gave too little for
// both. All that while frees go past the CPUs' caches, to
// where requests look, and are noted here. So is what an allocation took from the caches and does
// not need: a pass has missed it.

std::uint64_t Pool::Impl::begin_pass() {
  MutexLock lock(gate_lock);
  ++shortage.passes;
  set_shortage();
  return shortage.frees;
}

// Only a pool that cannot grow is exhausted until something is freed. A pass that failed although
// enough is free did so for want of mappings, which a free may not bring, or time may. One that may
// not ask shrinkers says nothing to requests that may.
void Pool::Impl::end_pass(std::uint64_t frees_before, const Request& request, bool found) {
  if (!found) {
    keeper->note_activity();  // It goes on asking shrinkers.
  }
  MutexLock lock(gate_lock);
  --shortage.passes;
  const bool full = is_grown_up() && pages->free_hint() < request.pages;
  if (found) {
    set_exhausted(kNotExhausted, true);
  } else if (full && shortage.frees == frees_before) {
    set_exhausted(request.pages.value(), !has(request.flags, AllocFlags::kNoFs));
  }
  set_shortage();
}

void Pool::Impl::note_freed() {
  if (!is_short()) {
    return;
  }
  MutexLock lock(gate_lock);
  ++shortage.frees;
  set_exhausted(kNotExhausted, true);
  set_shortage();
}

void Pool::Impl::set_exhausted(std::uint64_t from_pages, bool shrinkers_too) {
  exhausted_pages.store(from_pages, std::memory_order_relaxed);  // A hint.
  if (shrinkers_too) {
    exhausted_with_shrinkers.store(from_pages, std::memory_order_relaxed);  // Same.
  }
}

void Pool::Impl::set_shortage() {
  const std::uint64_t refused = exhausted_pages.load(std::memory_order_relaxed);  // Under the lock.
  const bool is_now = shortage.passes != 0 || refused != kNotExhausted;
  is_short_of_memory.store(is_now, std::memory_order_relaxed);  // A hint.
  set_gate(kShort, is_now);
}

// There is somebody new to ask.
Status Pool::add_shrinker(Shrinker& shrinker) {
  if (!owned_by_this_process()) {
    return Error{Errc::kForked, 0, "a shrinker of a parent's pool", 0};
  }
  const Status added = impl_->shrinkers.add(shrinker);
  impl_->note_freed();
  return added;
}

// In a forked child none is asked, and the scan of the parent's that may be under way never ends.
void Pool::remove_shrinker(Shrinker& shrinker) {
  if (owned_by_this_process()) {
    impl_->shrinkers.remove(shrinker);
  }
}

Status Pool::set_limit(const char* owner, Bytes limit) {
  if (!owned_by_this_process()) {
    return Error{Errc::kForked, 0, "a limit in a parent's pool", 0};
  }
  const Status set = impl_->tags.set(owner, limit);
  if (set.ok()) {
    impl_->close_gate(Impl::kTagLimits);
  }
  return set;
}

}  // namespace keel
