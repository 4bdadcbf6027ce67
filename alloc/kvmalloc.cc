// kvmalloc: which tier serves a request, and what happens when none can.
//
// The order is that of xlog_kvmalloc: what lies ready, then contiguous from the free lists and fail
// fast, then vmalloc, then (for kNoFail) again and again. What a kernel's page allocator does
// between (compaction, direct reclaim) happens here only when all of that has failed, and once.
#include <algorithm>
#include <cstring>

#include "keel/base/check.h"
#include "keel/base/lock_rank.h"
#include "keel/base/os.h"
#include "keel/base/probes.h"
#include "message.h"
#include "patience.h"
#include "poison.h"
#include "pool_impl.h"

namespace keel {
namespace {

// Passes of one request, each of which found enough that others took. A shrinker may say that it
// gives and not do it. Source: MAX_RECLAIM_RETRIES (Linux).
constexpr unsigned kMostRounds = 16;

// What the thread's scopes and kNoFail make of the caller's flags. Inside a scan, of another pool's
// shrinker as well, no shrinker is asked.
AllocFlags effective(AllocFlags flags) {
  if (NoReclaimScope::active() || Shrinkers::scanning_here()) {
    flags = flags | AllocFlags::kNoFs;
  }
  if (has(flags, AllocFlags::kNoFail)) {
    flags = without(flags, AllocFlags::kNoWait);
  }
  return flags;
}

// What a record says of the cache that its buffer may go to when it is freed.
FrameWord kept_as(std::uint8_t kind, FrameWord word) {
  word.kind = kind;
  word.flags = kind == kNoClass ? FrameWord::kUncached : std::uint16_t{0};
  return word;
}

bool has_class(Pages pages) { return pages.value() <= kMaxClassPages; }

// Pages that a buffer of the request's class has; the request's own above the classes.
Pages class_pages(Pages pages) {
  return has_class(pages)
             ? Pages(pages_of_class(size_class_of(static_cast<std::uint32_t>(pages.value()))))
             : pages;
}

// Pages that a new buffer for the request has, if there is room: up to kMaxExactPages those of its
// class. Large ones get their own only: a run of any length costs less to make than to fill, and
// the difference is memory.
Pages wanted_pages(Pages pages) {
  return pages.value() <= kMaxExactPages ? class_pages(pages) : pages;
}

}  // namespace

void* Pool::kvmalloc(std::size_t size_bytes, AllocFlags flags, const char* owner) {
#if defined(KEEL_DEBUG)
  if (!has(effective(flags), AllocFlags::kNoFs) && !has(effective(flags), AllocFlags::kNoWait)) {
    lock_rank_may_reclaim();
  }
#endif
  Impl& impl = *impl_;
  // A size of 0 wraps, and goes the slow way.
  if (size_bytes - 1 < impl.most_small_bytes) {
    if (void* object = impl.allocate_small(size_bytes, flags, owner)) [[likely]] {
      return object;
    }
  } else if (size_bytes - 1 < impl.most_class_bytes && impl.is_fast() && !NoAllocScope::active())
      [[likely]] {
    const auto pages = static_cast<std::uint32_t>((size_bytes - 1) >> kPageShift) + 1;
    const std::uint32_t frame = impl.cache.pop(size_class_of(pages));
    if (frame != Impl::kNoFrame) [[likely]] {
      FrameRecord& record = impl.records[frame];
      FrameWord word = record.word();
      if (word.use != FrameUse::kCached || kPoisons || has(flags, AllocFlags::kZero)) [[unlikely]] {
        if (void* buffer = impl.hand_out(frame, {size_bytes, Pages(pages), flags, owner})) {
          return buffer;
        }
      } else {
        word.use = FrameUse::kBuffer;
        record.set(word);
        record.set_owner(owner);
        record.bytes = static_cast<std::uint32_t>(size_bytes);
        const std::uintptr_t address = impl.direct_base + (std::uintptr_t{frame} << kPageShift);
        return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
      }
    }
  }
  return impl.allocate_slowly(
      {size_bytes, pages_for(size_bytes), effective(flags), owner != nullptr ? owner : ""});
}

// From the cache to a caller, whatever the buffer is; nullptr if it is somebody's already.
void* Pool::Impl::hand_out(std::uint32_t frame, const Request& request) {
  FrameRecord& record = pages->record(Pfn(frame));
  FrameWord word = record.word();
  if (word.use != FrameUse::kCached && word.use != FrameUse::kCachedChain) {
    // Two threads freed it at one time, which only its second way through the cache shows.
    report_freed_twice(frame);
    return nullptr;
  }
  word.use = word.use == FrameUse::kCached ? FrameUse::kBuffer : FrameUse::kChain;
  record.set(word);
  record.set_owner(request.owner);
  record.bytes = static_cast<std::uint32_t>(request.size_bytes);
  void* buffer = address_of(frame);
  unpoison_buffer(buffer, request.size_bytes, held_bytes(frame));
  if (has(request.flags, AllocFlags::kZero)) {
    clear(buffer, request);
  }
  return buffer;
}

// To the end of the last page, but for what a hardened pool has written there.
void Pool::Impl::clear(void* buffer, const Request& request) const {
  const std::size_t bytes = hardened.on() ? request.size_bytes : bytes_of(request.pages);
  unpoison_range(buffer, bytes);
  std::memset(buffer, 0, bytes);
}

void* Pool::Impl::allocate_slowly(const Request& request) {
  if (!check_allocation_allowed("kvmalloc")) {
    return nullptr;
  }
  if (!store->owned_by_this_process()) {
    return nullptr;  // kNoFail too: waiting would not help
  }
  void* buffer = nullptr;
  if (is_within_limit(request.size_bytes)) {
    buffer = allocate_once(request);
    if (buffer == nullptr && has(request.flags, AllocFlags::kNoFail)) {
      buffer = allocate_nofail(request);
    }
  }
  if (buffer == nullptr) {
    note_failure(request);
    return nullptr;
  }
  if (has(request.flags, AllocFlags::kZero) && !small->owns(buffer)) {
    clear(buffer, request);
  }
  return buffer;
}

// A size that can never be had is refused at once, kNoFail or not: looping would help nobody.
bool Pool::Impl::is_within_limit(std::size_t size_bytes) const {
  const std::size_t mappable = config.window_bytes - kPageBytes;  // the guard page
  const std::size_t addressable =
      hardened.on() ? mappable : std::max(mappable, bytes_of(kMaxContiguous));
  return size_bytes != 0 && size_bytes <= config.kvmalloc_max_bytes &&
         size_bytes <= config.capacity_bytes && size_bytes <= addressable;
}

void* Pool::Impl::allocate_once(const Request& request) {
  // Charged first and for as much as a new buffer may hold, so that no order of threads passes a
  // limit.
  const unsigned tag = tags.find(request.owner);
  const std::uint64_t charge = bytes_of(wanted_pages(request.pages));
  if (tag != TagLimits::kUnlimited && !tags.charge(tag, charge)) {
    return nullptr;
  }
  void* buffer = try_tiers(request);
  if (tag == TagLimits::kUnlimited) {
    return buffer;
  }
  if (buffer != nullptr && !settle_charge(tag, charge, buffer)) {
    // The limit has no room for all of an idle one. It has for a new one.
    buffer = try_new(request);
    const bool settled = buffer == nullptr || settle_charge(tag, charge, buffer);
    KEEL_CHECK(settled, "a new buffer holds more than was charged", charge);
  }
  if (buffer == nullptr) {
    tags.uncharge(tag, charge);
    return nullptr;
  }
  return buffer;
}

// Makes the charge what the buffer holds, which may be more: an idle one that is larger. If that
// passes the limit the buffer goes, the charge stays, and false is returned.
bool Pool::Impl::settle_charge(unsigned tag, std::uint64_t charge, void* buffer) {
  FrameUse expected{};
  const std::uint32_t frame = frame_at(buffer, expected);
  const std::uint64_t held = held_bytes(frame);
  if (held > charge && !tags.charge(tag, held - charge)) {
    give_back(frame);
    return false;
  }
  if (held < charge) {
    tags.uncharge(tag, charge - held);
  }
  FrameRecord& record = pages->record(Pfn(frame));
  FrameWord word = record.word();
  word.flags = static_cast<std::uint16_t>((word.flags & FrameWord::kUncached) | (tag + 1));
  record.set(word);
  return true;
}

void* Pool::Impl::try_tiers(const Request& request) {
  if (void* buffer = try_cache(request)) {
    return buffer;
  }
  return try_new(request);
}

// Past what is idle.
void* Pool::Impl::try_new(const Request& request) {
  if (is_exhausted(request) && !has(request.flags, AllocFlags::kNoFail)) {
    counters.add(PoolCount::kRefusals);
    KEEL_PROBE(exhausted, request.size_bytes, request.owner);
    return nullptr;
  }
  if (has(request.flags, AllocFlags::kRetryMayfail) && !has(request.flags, AllocFlags::kNoWait)) {
    if (void* buffer = try_contiguous(request)) {
      return buffer;
    }
    (void)reclaim(request, true);  // What it got shows below.
    (void)window->purge();         // What it could not remove stays lazy.
  }
  if (void* buffer = try_contiguous(request)) {
    return buffer;
  }
  if (has(request.flags, AllocFlags::kNoWait)) {
    return nullptr;
  }
  const std::uint64_t began_ns = os().monotonic_ns();
  void* buffer = make_buffer(request);
  if (buffer != nullptr) {
    const std::uint64_t took_ns = os().monotonic_ns() - began_ns;
    slow_ns.add(took_ns);
    KEEL_PROBE(slow_allocation, request.size_bytes, took_ns, request.owner);
  }
  return buffer;
}

// With system calls: by growing, by mapping, by taking from others.
void* Pool::Impl::make_buffer(const Request& request) {
  if (pages->free_hint() < std::max(request.pages, spare_target())) {
    if (void* buffer = grow_for(request)) {
      return buffer;
    }
  }
  if (void* buffer = try_vmalloc(request)) {
    return buffer;
  }
  // Enough is free, but there are no mappings or no addresses left for it: larger runs then.
  if (void* buffer = grow_for(request)) {
    return buffer;
  }
  const std::uint64_t frees_before = begin_pass();
  void* buffer = nullptr;
  bool again = true;
  for (unsigned round = 0; again && round < kMostRounds; ++round) {
    const bool enough = reclaim(request, round == 0);
    buffer = try_contiguous(request);
    if (buffer == nullptr) {
      buffer = try_vmalloc(request);
    }
    again = buffer == nullptr && enough && pages->free_hint() < request.pages;
  }
  end_pass(frees_before, request, buffer != nullptr);
  return buffer;
}

// Cache -------------------------------------------------------------------------------------------

void* Pool::Impl::try_cache(const Request& request) {
  if (!has_class(request.pages) || hardened.on()) {
    return nullptr;
  }
  // The stack too: while the fast path is closed, this is the only way to what lies there.
  std::uint32_t frame = cache.pop(size_class_of(static_cast<std::uint32_t>(request.pages.value())));
  if (frame == kNoFrame) {
    frame = cache.refill(request.pages);
  }
  if (frame == kNoFrame) {
    return nullptr;
  }
  Request uncleared = request;  // Who asked for this clears what it gets.
  uncleared.flags = without(request.flags, AllocFlags::kZero);
  return hand_out(frame, uncleared);
}

// True if there is enough left to give a request all the pages of its class, so that the buffer can
// be kept and used again as it is. Where memory is scarce a buffer gets its own pages only.
bool Pool::Impl::is_roomy(Pages wanted) const {
  const Pages left = store->capacity() - pages->present_hint() + pages->free_hint();
  return left.value() >= 8 * wanted.value() && !hardened.on();
}

void Pool::Impl::note_if_low() {
  if (pages->free_hint() < low_watermark()) {
    keeper->note_low();
  }
}

// Contiguous --------------------------------------------------------------------------------------

void* Pool::Impl::try_contiguous(const Request& request) {
  if (hardened.on() || request.pages > kMaxContiguous) {
    return nullptr;
  }
  Pages held = is_roomy(request.pages) ? wanted_pages(request.pages) : request.pages;
  std::optional<Pfn> frame = pages->allocate(held, request.owner);
  if (!frame && held != request.pages) {
    held = request.pages;  // Exact: better than a mapping, or than nothing.
    frame = pages->allocate(held, request.owner);
  }
  if (!has(request.flags, AllocFlags::kNoWait)) {
    note_if_low();
  }
  if (!frame) {
    return nullptr;
  }
  counters.add(PoolCount::kContiguous);
  FrameRecord& record = pages->record(*frame);
  record.set(kept_as(kept_class_of(held.value()), record.word()));
  record.bytes = static_cast<std::uint32_t>(request.size_bytes);
  std::byte* buffer = store->address_of(*frame);
  unpoison_buffer(buffer, request.size_bytes, bytes_of(held));
  return buffer;
}

// Below capacity, while little is free, a caller populates a chunk itself: scattered mappings are
// for a pool that has free frames in the wrong places, not for a young one.
void* Pool::Impl::grow_for(const Request& request) {
  if (request.pages > kMaxContiguous || hardened.on()) {
    return nullptr;
  }
  if (is_grown_up()) {
    if (void* buffer = try_contiguous(request)) {
      return buffer;
    }
    // Before and after: else trim() may have had a chunk in its hands while this looked. (What has
    // come back since is seen by the next look, after the reclaim.)
    if (is_grown_up()) {
      return nullptr;
    }
  }
  Pages grown{};
  TurnLock lock(grow_lock);
  for (;;) {
    // First without growing: who had the lock before may have grown for this request too.
    if (void* buffer = try_contiguous(request)) {
      return buffer;
    }
    if (grown >= request.pages + store->chunk() || !grow(GrowthPages::kSmall)) {
      return nullptr;
    }
    grown += store->chunk();
    counters.add(PoolCount::kInlineGrowths);
    KEEL_PROBE(inline_growth, request.size_bytes, request.owner);
  }
}

// vmalloc -----------------------------------------------------------------------------------------

void* Pool::Impl::try_vmalloc(const Request& request) {
  const auto gather = [&]() -> std::optional<Pfn> {
    const Pages held = is_roomy(request.pages) ? wanted_pages(request.pages) : request.pages;
    const auto chain = pages->gather(held, request.owner);
    return chain || held == request.pages ? chain : pages->gather(request.pages, request.owner);
  };
  const bool full = is_grown_up();
  std::optional<Pfn> chain = gather();
  if (!chain && !(full && is_grown_up())) {  // Before and after, as above.
    const Populating populates(*this);
    for (bool grown = true; !chain && grown;) {
      TurnLock lock(grow_lock);  // For one chunk at a time: callers may need it too.
      // Again under the lock, as above; and others may take what was grown, so until growing fails.
      chain = gather();
      grown = !chain && grow(GrowthPages::kSmall);
      if (grown) {
        counters.add(PoolCount::kInlineGrowths);
        KEEL_PROBE(inline_growth, request.size_bytes, request.owner);
      }
    }
  }
  note_if_low();
  return chain ? map_chain(*chain, request) : nullptr;
}

void* Pool::Impl::map_chain(Pfn chain, const Request& request) {
  ChainSource frames(*pages, chain);
  const Result<void*> mapped =
      window->map(frames, {.owner = request.owner, .cookie = chain.value(), .guard = true});
  if (!mapped) {
    pages->free_chain(chain);
    note_freed();  // Others may have found nothing while they were here.
    return nullptr;
  }
  counters.add(PoolCount::kVmalloc);
  KEEL_PROBE(vmalloc, request.size_bytes, *mapped, request.owner);
  FrameRecord& record = pages->record(chain);
  const Pages held{record.prev};
  record.set(kept_as(hardened.on() ? kNoClass : kept_class_of(held.value()), record.word()));
  record.bytes = static_cast<std::uint32_t>(request.size_bytes);
  record.area = static_cast<std::uint32_t>(
      (reinterpret_cast<std::uintptr_t>(*mapped) - window_base) >> kPageShift);
  // Relaxed, as its declaration says.
  area_frames[record.area].store(static_cast<std::uint32_t>(chain.value()) + 1,
                                 std::memory_order_relaxed);
  const std::uint64_t end = record.area + held.value();
  std::uint64_t highest = highest_area.load(std::memory_order_relaxed);  // As its declaration says.
  while (highest < end &&
         !highest_area.compare_exchange_weak(highest, end, std::memory_order_relaxed)) {
  }
  unpoison_buffer(*mapped, request.size_bytes, bytes_of(held));
  if (hardened.on()) {
    unpoison_range(*mapped, bytes_of(held));
    Hardened::mark_end(static_cast<std::byte*>(*mapped), request.size_bytes, bytes_of(held));
  }
  return *mapped;
}

// When there is nothing ---------------------------------------------------------------------------

// False if the owner could not have it either if it held nothing.
bool Pool::Impl::is_within_owners_limit(const Request& request) {
  const unsigned tag = tags.find(request.owner);
  if (tag == TagLimits::kUnlimited) {
    return true;
  }
  const bool is_small = request.size_bytes <= kKmallocMaxBytes && !hardened.on() &&
                        owners.of(request.owner) != OwnerIds::kOthers;
  const Bytes least(is_small ? small->object_bytes(request.size_bytes)
                             : bytes_of(wanted_pages(request.pages)));
  return least <= tags.limit(tag);
}

// nullptr only if the owner's limit is too small, which may have been set meanwhile.
void* Pool::Impl::allocate_nofail(const Request& request) {
  for (Patience patience; is_within_owners_limit(request);) {
    patience.sleep();
    // Objects may have been freed, and yet no slab be empty.
    if (request.size_bytes <= kKmallocMaxBytes) {
      if (void* object = allocate_small(request.size_bytes, request.flags, request.owner)) {
        return object;
      }
    }
    if (void* buffer = allocate_once(request)) {
      return buffer;
    }
    if (patience.is_message_due()) {
      counters.add(PoolCount::kNofailWarnings);
      send_report("possible memory allocation deadlock", request);
    }
  }
  return nullptr;
}

void Pool::Impl::note_failure(const Request& request) {
  counters.add(PoolCount::kFailures);
  if (request.size_bytes == 0 || has(request.flags, AllocFlags::kNoWarn) ||
      has(request.flags, AllocFlags::kNoWait)) {
    return;
  }
  const std::uint64_t now_ns = os().monotonic_ns();
  std::uint64_t last_ns = last_message_ns.load(std::memory_order_relaxed);
  const bool due = last_ns == 0 || now_ns - last_ns >= kMessageIntervalNs;
  if (due && last_message_ns.compare_exchange_strong(last_ns, now_ns, std::memory_order_relaxed)) {
    send_report("memory allocation failed", request);
  }
}

void Pool::Impl::send_report(const char* headline, const Request& request) const {
  const unsigned tag = tags.find(request.owner);
  const bool limited = tag != TagLimits::kUnlimited;
  send_memory_report({.headline = headline,
                      .size_bytes = request.size_bytes,
                      .flags = static_cast<std::uint32_t>(request.flags),
                      .owner = request.owner,
                      .limit = limited ? std::optional(tags.limit(tag)) : std::nullopt,
                      .limited = limited ? tags.held(tag) : Bytes(0),
                      .capacity = Bytes(config.capacity_bytes),
                      .populated = Bytes(bytes_of(pages->counts().present))},
                     *pages);
}

}  // namespace keel
