// Purges: aliases of lazy areas are removed, neighbours together, and their addresses are free.
#include "keel/base/probes.h"
#include "window_impl.h"

namespace keel {
namespace {

// What one call of a whole purge covers: as much as can be, since its caller needs it all. Bounds
// the walk under a shard's lock to 16 MiB of addresses, or one area, if larger.
constexpr PurgeBudget kWhole{.pages = 4096, .mappings = ~0U};

// What one call of a purge in slices covers. On a virtual machine whose other CPUs run threads of
// the process the kernel takes up to 10 us for each mapping (it interrupts them for each whose
// pages were written to) and 0.2 us for each page.
constexpr PurgeBudget kSlice{.pages = 512, .mappings = 64};

}  // namespace

Status Window::purge() {
  if (!impl_->store.owned_by_this_process()) {
    return Error{Errc::kForked, 0, "purge of a parent's window", 0};
  }
  return impl_->purge();
}

bool Window::purge_slice() {
  return impl_->store.owned_by_this_process() && impl_->purge_one_slice();
}

void Window::purge_in_slices() {
  const std::uint64_t before = impl_->purged_pages.load(std::memory_order_relaxed);  // A count.
  const Pages lazy = lazy_pages();
  while (lazy_pages() != Pages(0) && purge_slice() &&
         Pages(impl_->purged_pages.load(std::memory_order_relaxed) - before) < lazy) {
  }
}

bool Window::Impl::claim_marked(Shard& shard) {
  MutexLock guard(shard.lock);
  return shard.table.has_marked() && claim(shard, kWhole);
}

bool Window::Impl::claim(Shard& shard, const PurgeBudget& budget) {
  const auto slice = shard.table.claim_lazy(budget);
  if (!slice) {
    return false;
  }
  removal = Removal{.shard = &shard, .slice = *slice};
  return true;
}

// From shard to shard in turn.
bool Window::Impl::claim_anywhere(const PurgeBudget& budget) {
  for (unsigned i = 0; i < space.count(); ++i) {
    Shard& shard = space.shard(next_shard);
    next_shard = (next_shard + 1) % space.count();
    MutexLock guard(shard.lock);
    if (claim(shard, budget)) {
      return true;
    }
  }
  return false;
}

// Maps nothing over the next `max_pages` of what was claimed. Once all is covered, or the kernel
// has refused, nothing is claimed any more.
int Window::Impl::remove(std::uint32_t max_pages) {
  const std::uint32_t left = removal->slice.pages - removal->done;
  const std::uint32_t pages = left < max_pages ? left : max_pages;
  const int error = map_nothing(removal->slice.first + removal->done, pages);
  KEEL_PROBE(purge, pages, error);
  purge_calls.fetch_add(1, std::memory_order_relaxed);
  if (error < 0) {
    purge_failures.fetch_add(1, std::memory_order_relaxed);
    MutexLock guard(removal->shard->lock);
    removal->shard->table.abandon_purge(removal->slice);
    removal.reset();
    return error;
  }
  removal->done += pages;
  if (removal->done == removal->slice.pages) {
    finish_removal();
    removal.reset();
  }
  return 0;
}

void Window::Impl::finish_removal() {
  bool spans = false;
  {
    MutexLock guard(removal->shard->lock);
    spans = removal->shard->table.is_spanning(removal->slice.first);
    if (!spans) {
      removal->shard->table.finish_purge(removal->slice);
    }
  }
  if (spans) {
    space.free_spanning(removal->slice.first);
  }
  purged_pages.fetch_add(removal->slice.area_pages, std::memory_order_relaxed);
}

// A piece that is gone from an area is one mapping more, of nothing, until the rest has gone too.
// False if the budget has none left.
bool Window::Impl::charge_cut() {
  MutexLock guard(removal->shard->lock);
  RangeTable& table = removal->shard->table;
  if (table.at(removal->slice.first).cut()) {
    return true;  // of a purge that was abandoned
  }
  if (!charge_mappings(1)) {
    return false;
  }
  table.note_cut(removal->slice.first);
  return true;
}

Status Window::Impl::purge() {
  TurnLock one_at_a_time(purge_lock);
  purging.store(true, std::memory_order_relaxed);  // A hint only.
  const std::uint64_t before = purged_pages.load(std::memory_order_relaxed);
  int first_error = 0;
  if (removal) {
    first_error = remove(~0U);  // The rest of what a purge in slices began.
  }
  for (unsigned i = 0; i < space.count(); ++i) {
    Shard& shard = space.shard(i);
    {
      MutexLock guard(shard.lock);
      shard.table.mark_lazy();  // Later ones are not waited for: they might never end.
    }
    while (claim_marked(shard)) {
      const int error = remove(~0U);
      first_error = first_error != 0 ? first_error : error;
    }
  }
  purging.store(false, std::memory_order_relaxed);  // A hint only.
  if (purged_pages.load(std::memory_order_relaxed) != before) {
    purges.fetch_add(1, std::memory_order_relaxed);
  }
  if (first_error < 0) {
    return system_error(-first_error, "mapping nothing over lazy aliases");
  }
  return {};
}

bool Window::Impl::purge_one_slice() {
  TurnLock one_at_a_time(purge_lock);
  if (!removal && !claim_anywhere(kSlice)) {
    return false;
  }
  // An area past the budget goes in pieces, as if its mappings were of one size.
  const PurgeSlice& slice = removal->slice;
  std::uint64_t pages = kSlice.pages;
  if (slice.mappings > kSlice.mappings) {
    const std::uint64_t by_mappings = std::uint64_t{slice.pages} * kSlice.mappings / slice.mappings;
    pages = by_mappings < pages ? by_mappings : pages;
  }
  if (removal->done == 0 && pages < slice.pages && !charge_cut()) {
    pages = slice.pages;
  }
  if (remove(static_cast<std::uint32_t>(pages)) < 0) {
    return false;
  }
  purge_slices.fetch_add(1, std::memory_order_relaxed);
  return space.totals().lazy_pages.load(std::memory_order_relaxed) != 0;
}

// What a map() of `pages` owes past the threshold: twice as many, in slices, so that what is lazy
// gets less although nobody else purges, and nobody waits for all of it.
void Window::Impl::purge_for(std::uint64_t pages) {
  if (purging.load(std::memory_order_relaxed)) {  // Someone is at it already; a hint only.
    return;
  }
  const std::uint64_t before = purged_pages.load(std::memory_order_relaxed);
  // What could not be removed is still lazy; this mapping does not need it.
  while (past_threshold() && purge_one_slice() &&
         purged_pages.load(std::memory_order_relaxed) - before < 2 * pages) {
  }
}

}  // namespace keel
