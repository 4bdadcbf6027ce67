// The size of a pool's store: growing it, populating ahead, giving back.
#include <algorithm>

#include "keel/base/check.h"
#include "keel/base/probes.h"
#include "poison.h"
#include "pool_impl.h"

namespace keel {
namespace {
constexpr std::uint64_t kPagesPerMiB = 256;
// What lies idle may be taken and be idle again as fast as it is given back.
constexpr unsigned kMostDrains = 3;
}  // namespace

bool Pool::Impl::grow(GrowthPages kind) {
  const Result<FrameRun> next = store->next_chunk();
  // Records first: once the store has grown, nothing may fail.
  if (!next || !pages->prepare(*next)) {
    return false;
  }
  const Result<FrameRun> chunk = store->grow(kind);
  if (!chunk) {
    return false;
  }
  poison_range(store->address_of(chunk->first), bytes_of(chunk->count));
  pages->add(*chunk);
  set_cache_budget();
  return true;
}

void Pool::Impl::set_cache_budget() { cache.set_budget(pages->present_hint(), is_grown_up()); }

// Free frames below which a request that finds no contiguous run has the store grown, above which
// it has scattered ones mapped: the price in memory of mapping less.
Pages Pool::Impl::spare_target() const {
  return Pages(std::max(pages->present_hint().value() / 24, kPagesPerMiB));
}

// Free frames below which the keeper grows the store: before a caller would, but in a large pool
// not by as much.
Pages Pool::Impl::low_watermark() const {
  return std::min(spare_target(), Pages(16 * kPagesPerMiB));
}

// From now on the keeper leaves as much as is populated now, but for `spare`.
void Pool::Impl::keep_present(Pages spare) {
  const std::uint64_t keep = (pages->present_hint() - spare).value();
  std::uint64_t kept =
      kept_present.load(std::memory_order_relaxed);  // A number only, here and below.
  while (kept < keep &&
         !kept_present.compare_exchange_weak(kept, keep, std::memory_order_relaxed)) {
  }
}

// What the keeper leaves populated: all of it while anybody makes more.
Pages Pool::Impl::kept() const {
  const bool all = populating.load(std::memory_order_relaxed) != 0;  // Hints, both.
  return all ? store->capacity() : Pages(kept_present.load(std::memory_order_relaxed));
}

Status Pool::reserve(Bytes bytes) {
  if (!owned_by_this_process()) {
    return Error{Errc::kForked, 0, "reserve in a parent's pool", 0};
  }
  const Pages wanted = pages_for(bytes.value());
  if (wanted > impl_->store->capacity()) {
    return Error{Errc::kNoMemory, 0, "reserving bytes beyond the capacity", bytes.value()};
  }
  const Impl::Populating populating(*impl_);
  if (impl_->make_free(wanted)) {
    return {};
  }
  impl_->small->release();  // Slabs that hold no object any more.
  return impl_->make_free(wanted) ? Status{}
                                  : Error{Errc::kNoMemory, 0, "reserving bytes", bytes.value()};
}

// Grows the store until so much is free; where it cannot grow idle buffers make room.
bool Pool::Impl::make_free(Pages wanted) {
  for (unsigned drains = 0;;) {
    TurnLock lock(grow_lock);  // For one chunk at a time: callers may need it too.
    const Pages free = pages->free_hint();
    if (free >= wanted) {
      keep_present(free - wanted);
      return true;
    }
    if (grow(GrowthPages::kHuge)) {
      continue;
    }
    const bool drained = drains++ < kMostDrains && cache.shrink(wanted - free) != Pages(0);
    if (!drained && pages->free_hint() < wanted) {
      return false;
    }
  }
}

Bytes Pool::trim() {
  if (!owned_by_this_process()) {
    return Bytes(0);
  }
  impl_->cache.drain();
  impl_->small->release();
  impl_->kept_present.store(0, std::memory_order_relaxed);  // A number only.
  return impl_->trim(~0U);
}

// Gives back whole free chunks, the highest first, so that the store stays dense at its beginning.
Bytes Pool::Impl::trim(unsigned most_chunks) {
  constexpr unsigned kMostPurges = 3;  // Others may unmap as fast as it purges.
  const Pages chunk = store->chunk();
  Bytes given{};
  unsigned chunks = 0;
  for (Pfn end = Pfn(0) + store->capacity(); chunks < most_chunks;) {
    const std::optional<FrameRun> run = pages->find_free_chunk(end, chunk);
    if (!run) {
      break;
    }
    end = run->first;
    // Now, so that nobody waits for that below; and what has become lazy meanwhile.
    for (unsigned purges = 0; purges < kMostPurges && window->lazy_pages() != Pages(0); ++purges) {
      window->purge_in_slices();
    }
    TurnLock lock(grow_lock);  // For one chunk at a time: callers may need it too.
    // Read under the lock: while this waited for it, reserve() may have raised it.
    const Pages stays = Pages(kept_present.load(std::memory_order_relaxed)) + chunk;
    if (pages->present_hint() < stays) {
      break;
    }
    if (!pages->remove(*run)) {
      continue;
    }
    // Nobody can use its frames now, and what aliases they have are lazy: a purge ends them all.
    // One for each chunk: frames of the next may get lazy aliases until it is taken out too.
    if (window->purge().ok() && store->trim(*run).ok()) {
      note_freed();  // It may grow again.
      given += Bytes(bytes_of(chunk));
      ++chunks;
      counters.add(PoolCount::kTrimmedChunks);
      set_cache_budget();
    } else {
      pages->add(*run);
      break;
    }
  }
  KEEL_PROBE(trim, given.value());
  return given;
}

}  // namespace keel
