// What a pool's keeper thread does in a round, so that callers need not.
#include <algorithm>

#include "keel/base/os.h"
#include "pool_impl.h"

namespace keel {
namespace {

constexpr std::uint64_t kWindowNs = 1'000'000'000;
// So many go before what lies idle is looked at again.
constexpr unsigned kChunksPerSlice = 4;
constexpr unsigned kSlicesPerRound = 16;
constexpr unsigned kPurgesPerRound = 64;  // slices, of 2 MiB or less and up to a millisecond
constexpr Pages kLazyAhead{(16U << 20) >> kPageShift};
constexpr std::uint64_t kFreeShare = 128;       // of a full pool stays free, while anything is idle
constexpr std::uint64_t kSlabsKept = 1U << 20;  // bytes

}  // namespace

Upkeep::Rounds Pool::Impl::upkeep() {
  if (!store->owned_by_this_process()) {
    return Rounds::kNone;
  }
  Rounds more = Rounds::kNone;
  bool purges = false;
  {
    MutexLock lock(upkeep_lock);
    grow_ahead();
    purges = purge_ahead();
    note_lowest_free();
    more = give_back_idle();
  }
  keep_some_free();
  ask_shrinkers();
  // Callers do not ask them again before something is freed; they may have more by and by.
  const bool asks = is_short() && shrinkers.any();
  return purges || asks ? Rounds::kUsual : more;
}

// Up to twice the low watermark, so that it is not back at once.
void Pool::Impl::grow_ahead() {
  const Pages low = low_watermark();
  if (pages->free_hint() >= low) {
    return;
  }
  for (bool grown = true; grown && pages->free_hint() < low + low;) {
    TurnLock lock(grow_lock);  // For one chunk at a time: callers may need it too.
    grown = grow(GrowthPages::kHuge);
    counters.add(PoolCount::kKeeperGrowths, grown ? 1 : 0);
  }
}

// In a full pool, of what lies idle: for who may not wait for a drain.
void Pool::Impl::keep_some_free() {
  const Pages wanted{pages->present_hint().value() / kFreeShare};
  const Pages free = pages->free_hint();
  if (is_grown_up() && free < wanted) {
    (void)cache.shrink(wanted - free);
  }
}

// Where growing does not help any more, nor what lies idle. Without a lock: they may take any of
// their owners' locks, which stand before all of the pool's.
void Pool::Impl::ask_shrinkers() {
  const Pages low = low_watermark();
  if (is_grown_up() && pages->free_hint() + cache.idle_pages() < low) {
    (void)shrinkers.scan(Bytes(bytes_of(low)));  // What it gave shows in the free lists.
  }
}

// Before a map() would have to. True if there is more for the next round; what the system refuses
// to purge is not.
bool Pool::Impl::purge_ahead() {
  for (unsigned slice = 0; slice < kPurgesPerRound; ++slice) {
    if (window->lazy_pages() <= kLazyAhead || !window->purge_slice()) {
      return false;
    }
  }
  return true;
}

void Pool::Impl::note_lowest_free() {
  UpkeepState& state = upkeep_state;
  const std::uint64_t now_ns = os().monotonic_ns();
  if (now_ns >= state.window_ends_ns) {
    state.window_ends_ns = now_ns + kWindowNs;
    state.window = (state.window + 1) % UpkeepState::kWindows;
    if (state.window % 2 == 0) {
      cache.drain_idle();
      release_slabs();
    }
    // What that brought as well: nobody may come to tell of it later.
    state.lowest_free[state.window] = pages->free_hint();
  }
  Pages& lowest = state.lowest_free[state.window];
  lowest = std::min(lowest, pages->free_hint());
}

// Slabs that small objects have left: free lists and pages have no use of them before.
void Pool::Impl::release_slabs() {
  if (has_idle_slabs()) {
    upkeep_state.slabs_stay = small->release() == Bytes(0);
  } else {
    upkeep_state.slabs_stay = false;
  }
}

// True if more of the slabs is free than what comes and goes with the objects.
bool Pool::Impl::has_idle_slabs() const {
  const KmallocStats now = small->stats();
  const Bytes idle = now.held - std::min(now.held, now.live);
  return idle > Bytes(now.held.value() / 8 + kSlabsKept);
}

// Memory that no moment of the last seconds needed goes back to the system, chunk by chunk.
Upkeep::Rounds Pool::Impl::give_back_idle() {
  auto& lowest = upkeep_state.lowest_free;
  bool in_pieces = false;  // no chunk of what is free is whole, or the system took none
  const Pages keep = low_watermark() + low_watermark() + store->chunk();
  for (unsigned slice = 0; slice < kSlicesPerRound; ++slice) {
    const Pages unused = *std::min_element(lowest.begin(), lowest.end());
    const Pages present = pages->present_hint();
    const Pages stays = kept();
    if (unused < keep + store->chunk() || present < stays + store->chunk()) {
      break;
    }
    const std::uint64_t most = std::min((unused - keep).value(), (present - stays).value());
    const auto chunks = static_cast<unsigned>(
        std::min<std::uint64_t>(most / store->chunk().value(), kChunksPerSlice));
    const Pages given = pages_for(trim(chunks).value());
    in_pieces = given == Pages(0);
    if (in_pieces) {
      break;
    }
    for (Pages& free : lowest) {
      free = free - given;  // Which is no more than the least of them.
    }
  }
  // More than stays in any case, and free at the best of the last moments, or now: of a window in
  // which it was in use as well the lowest is little, and nobody may come to begin the next one.
  const Pages best = std::max(*std::max_element(lowest.begin(), lowest.end()), pages->free_hint());
  const bool may_give =
      pages->present_hint() >= kept() + store->chunk() && best >= keep + store->chunk();
  if ((may_give && !in_pieces) || cache.idle_pages() != Pages(0) ||
      (has_idle_slabs() && !upkeep_state.slabs_stay)) {
    return Rounds::kUsual;
  }
  // Small objects go in silence: they may make chunks whole, or leave slabs by and by.
  const bool may_come = may_give || small->stats().held > Bytes(kSlabsKept);
  return may_come ? Rounds::kRare : Rounds::kNone;
}

}  // namespace keel
