// kvfree and what else starts from a buffer's address.
//
// The address alone leads to the first frame's record: by arithmetic in the direct map, by one
// table in the window. The record says whether a caller has the buffer. If so it becomes idle, and
// goes to this CPU's cache; whatever is special about it goes the slow way.
#include <algorithm>
#include <cstring>

#include "keel/base/check.h"
#include "poison.h"
#include "pool_impl.h"

namespace keel {
namespace {
constexpr FrameUse idle_use(FrameUse use) {
  return use == FrameUse::kBuffer ? FrameUse::kCached : FrameUse::kCachedChain;
}
}  // namespace

std::byte* Pool::Impl::address_of(std::uint32_t frame) const {
  const FrameRecord& record = pages->record(Pfn(frame));
  const FrameUse use = record.word().use;
  if (use == FrameUse::kChain || use == FrameUse::kCachedChain) {
    const std::uintptr_t at = window_base + (std::uintptr_t{record.area} << kPageShift);
    return reinterpret_cast<std::byte*>(at);  // NOLINT(performance-no-int-to-ptr)
  }
  return store->address_of(Pfn(frame));
}

std::size_t Pool::Impl::held_bytes(std::uint32_t frame) const {
  const FrameRecord& record = pages->record(Pfn(frame));
  const FrameWord word = record.word();
  const bool chain = word.use == FrameUse::kChain || word.use == FrameUse::kCachedChain;
  return std::size_t{chain ? record.prev : word.pages} << kPageShift;
}

// Free --------------------------------------------------------------------------------------------

void Pool::kvfree(void* address) {
  Impl& impl = *impl_;
  FrameUse expected{};
  const std::uint32_t frame = impl.frame_at(address, expected);
  if (frame != Impl::kNoFrame && impl.is_fast()) [[likely]] {
    FrameRecord& record = impl.records[frame];
    FrameWord word = record.word();
    if (word.use == expected && word.flags == 0) [[likely]] {
      if (kPoisons) {
        poison_buffer(address, impl.held_bytes(frame));
      }
      word.use = idle_use(expected);
      record.set(word);
      if (!impl.cache.push(word.kind, frame)) [[unlikely]] {
        impl.overflow(word.kind, frame);
      }
      // A pass that began in between may have missed it. Relaxed: its drain stops this CPU after it
      // has closed the gate, so that either it finds the buffer or this finds the gate closed.
      if (!impl.is_fast()) [[unlikely]] {
        impl.note_freed();
      }
      return;
    }
  }
  if (address != nullptr && impl.store->owned_by_this_process()) {
    if (!impl.small->owns(address)) {
      impl.free_slowly(address, frame, expected);
    } else if (!impl.free_small(address)) {
      impl.report_wrong_small(address, "kvfree");
    }
  }
}

void Pool::kvfree_sized(void* address, std::size_t size_bytes) {
  Impl& impl = *impl_;
  if (impl.store->owned_by_this_process() && impl.small->owns(address)) {
    const std::size_t held = impl.small->size(address);
    // Of a small object only its size class is known.
    if (held != 0 &&
        (size_bytes > held || size_bytes == 0 || !impl.small->may_hold(held, size_bytes))) {
      report_bug({.bug = Bug::kWrongSize,
                  .call = "kvfree_sized",
                  .address = reinterpret_cast<std::uintptr_t>(address),
                  .area_start = reinterpret_cast<std::uintptr_t>(address),
                  .area_bytes = held});
      return;
    }
  }
  FrameUse expected{};
  const std::uint32_t frame = impl.frame_at(address, expected);
  if (frame != Impl::kNoFrame && impl.store->owned_by_this_process()) {
    const FrameRecord& record = impl.pages->record(Pfn(frame));
    if (record.word().use == expected && record.bytes != size_bytes) {
      report_bug({.bug = Bug::kWrongSize,
                  .call = "kvfree_sized",
                  .address = reinterpret_cast<std::uintptr_t>(address),
                  .area_start = reinterpret_cast<std::uintptr_t>(address),
                  .area_bytes = record.bytes,
                  .owner = record.owner_name()});
      return;
    }
  }
  kvfree(address);
}

// From now on it is no caller's; where it goes is the next line's business.
void Pool::Impl::make_idle(std::uint32_t frame) {
  poison_buffer(address_of(frame), held_bytes(frame));
  FrameRecord& record = pages->record(Pfn(frame));
  record.set_use(idle_use(record.word().use));
}

// From a caller to this CPU's cache, as it is.
void Pool::Impl::retire(std::uint32_t frame) {
  make_idle(frame);
  const std::uint8_t kind = pages->record(Pfn(frame)).word().kind;
  if (!cache.push(kind, frame)) {
    overflow(kind, frame);
  }
}

void Pool::Impl::overflow(std::uint8_t size_class, std::uint32_t frame) {
  cache.overflow(size_class, frame);
  keeper->note_activity();
}

void Pool::Impl::free_slowly(void* address, std::uint32_t frame, FrameUse expected) {
  if (frame == kNoFrame || pages->record(Pfn(frame)).word().use != expected) {
    report_wrong(address, "kvfree");
    return;
  }
  FrameRecord& record = pages->record(Pfn(frame));
  FrameWord word = record.word();
  if (hardened.on()) {
    const auto* buffer = static_cast<const std::byte*>(address);
    if (const std::byte* at = Hardened::overrun(buffer, record.bytes, held_bytes(frame))) {
      report_bug({.bug = Bug::kOverrun,
                  .call = "kvfree",
                  .address = reinterpret_cast<std::uintptr_t>(at),
                  .area_start = reinterpret_cast<std::uintptr_t>(address),
                  .area_bytes = record.bytes,
                  .owner = record.owner_name()});
      return;
    }
  }
  const unsigned tag = word.flags & ~unsigned{FrameWord::kUncached};
  if (tag != 0) {
    tags.uncharge(tag - 1U, held_bytes(frame));
    word.flags &= FrameWord::kUncached;
    record.set(word);
  }
  if (hardened.on()) {
    counters.add(PoolCount::kSlowFrees);
    quarantine(frame);
  } else if (is_short()) {
    counters.add(PoolCount::kSlowFrees);
    give_back(frame);
  } else if (word.kind != kNoClass) {
    retire(frame);
  } else {
    defer(frame);
  }
  note_freed();
}

// A buffer of no class: back to the free lists, with a few others.
void Pool::Impl::defer(std::uint32_t frame) {
  make_idle(frame);
  if (!cache.defer(frame, pages_of(Pfn(frame)))) {
    counters.add(PoolCount::kSlowFrees);
    evict_one(Pfn(frame));
  }
  keeper->note_activity();
}

// Past the cache.
void Pool::Impl::give_back(std::uint32_t frame) {
  make_idle(frame);
  evict_one(Pfn(frame));
  keeper->note_activity();
}

// Aliases first: a frame that is free must have none that is not in the lazy list (trim). A buffer
// that is in use was freed by two threads at one time, and is its next owner's by now: it stays.
void Pool::Impl::evict(std::span<const Pfn> buffers) {
  std::array<Pfn, CpuStacks::kDepth> idle;
  KEEL_CHECK(buffers.size() <= idle.size(), "buffers evicted at once", buffers.size());
  std::size_t count = 0;
  for (const Pfn buffer : buffers) {
    const FrameRecord& record = pages->record(buffer);
    const FrameUse use = record.word().use;
    // Relaxed, as its declaration says. A chain without an area stands in this batch twice.
    const bool mapped = use == FrameUse::kCachedChain &&
                        area_frames[record.area].load(std::memory_order_relaxed) != 0;
    if (mapped) {
      end_alias(buffer);
    } else if (use != FrameUse::kCached) {
      report_freed_twice(static_cast<std::uint32_t>(buffer.value()));
      continue;
    }
    idle[count++] = buffer;
  }
  const std::size_t twice = pages->free_batch(std::span(idle).first(count));
  for (std::size_t i = 0; i < twice; ++i) {
    report_freed_twice(static_cast<std::uint32_t>(idle[i].value()));
  }
  note_freed();
}

void Pool::Impl::evict_one(Pfn buffer) {
  const std::array<Pfn, 1> one{buffer};
  evict(one);
}

void Pool::Impl::end_alias(Pfn chain) {
  const FrameRecord& record = pages->record(chain);
  // Relaxed, as its declaration says.
  area_frames[record.area].store(0, std::memory_order_relaxed);
  const bool unmapped =
      window->unmap(address_of(static_cast<std::uint32_t>(chain.value())), nullptr, "kvfree");
  KEEL_CHECK(unmapped, "a buffer's area is not the window's", record.area);
}

void Pool::Impl::report_freed_twice(std::uint32_t frame) const {
  const auto address = reinterpret_cast<std::uintptr_t>(address_of(frame));
  report_bug({.bug = Bug::kDoubleFree,
              .call = "kvfree",
              .address = address,
              .area_start = address,
              .area_bytes = held_bytes(frame),
              .owner = pages->record(Pfn(frame)).owner_name()});
}

Tier Pool::Impl::tier_of(Pfn buffer) const {
  return pages->record(buffer).word().use == FrameUse::kCachedChain ? Tier::kMapped
                                                                    : Tier::kContiguous;
}

Pages Pool::Impl::pages_of(Pfn buffer) const {
  return pages_for(held_bytes(static_cast<std::uint32_t>(buffer.value())));
}

// A freed buffer of a hardened pool: inaccessible at once, in use again much later.
void Pool::Impl::quarantine(std::uint32_t frame) {
  Pfn due;
  while (hardened.take_due(due, false)) {
    evict_one(due);
  }
  std::byte* buffer = address_of(frame);
  const std::size_t held = held_bytes(frame);
  poison_buffer(buffer, held);
  pages->record(Pfn(frame)).set_use(FrameUse::kCachedChain);
  // If the kernel refuses, the buffer stays readable, which is no worse than in any other pool.
  (void)os().mprotect(buffer, held, 0);
  hardened.put(Pfn(frame), pages_for(held));
  keeper->note_activity();
}

// Size and place ----------------------------------------------------------------------------------

std::size_t Pool::kvsize(const void* address) const {
  if (address == nullptr || !owned_by_this_process()) {
    return 0;
  }
  if (const std::size_t small = impl_->small->size(address); small != 0) {
    return small;
  }
  FrameUse expected{};
  const std::uint32_t frame = impl_->frame_at(address, expected);
  if (frame == Impl::kNoFrame || impl_->pages->record(Pfn(frame)).word().use != expected) {
    impl_->report_wrong(address, "kvsize");
    return 0;
  }
  if (impl_->hardened.on()) {
    return impl_->pages->record(Pfn(frame)).bytes;
  }
  // Who asks may use all of it.
  const std::size_t held = impl_->held_bytes(frame);
  unpoison_range(const_cast<void*>(address), held);
  return held;
}

bool Pool::is_contiguous(const void* address) const {
  if (!owned_by_this_process()) {
    return false;
  }
  if (impl_->small->size(address) != 0) {
    return true;
  }
  FrameUse expected{};
  const std::uint32_t frame = impl_->frame_at(address, expected);
  return frame != Impl::kNoFrame && expected == FrameUse::kBuffer &&
         impl_->pages->record(Pfn(frame)).word().use == expected;
}

void* Pool::kvrealloc(void* address, std::size_t size_bytes, AllocFlags flags, const char* owner) {
  if (address == nullptr) {
    return kvmalloc(size_bytes, flags, owner);
  }
  if (!owned_by_this_process()) {
    return nullptr;
  }
  if (const std::size_t held = impl_->small->size(address); held != 0) {
    return impl_->reallocate_small(*this, address, held, {size_bytes, {}, flags, owner});
  }
  FrameUse expected{};
  const std::uint32_t frame = impl_->frame_at(address, expected);
  if (frame == Impl::kNoFrame || impl_->pages->record(Pfn(frame)).word().use != expected) {
    impl_->report_wrong(address, "kvrealloc");
    return nullptr;
  }
  FrameRecord& record = impl_->pages->record(Pfn(frame));
  const std::size_t held = impl_->held_bytes(frame);
  const std::size_t kept = record.bytes;
  // In place if it fits and does not hold on to more than twice what is asked for, or if there is
  // nothing to move it to.
  const bool fits =
      impl_->is_within_limit(size_bytes) && size_bytes <= held && !impl_->hardened.on();
  void* moved = nullptr;
  if (!fits) {
    moved = kvmalloc(size_bytes, flags, owner);
  } else if (size_bytes <= held / 2) {
    moved = kvmalloc(size_bytes, without(flags, AllocFlags::kNoFail) | AllocFlags::kNoWarn, owner);
  }
  if (fits && moved == nullptr) {
    record.bytes = static_cast<std::uint32_t>(size_bytes);
    resize_buffer(address, kept, size_bytes, held);
    if (has(flags, AllocFlags::kZero) && size_bytes > kept) {
      std::memset(static_cast<std::byte*>(address) + kept, 0, size_bytes - kept);
    }
    return address;
  }
  if (moved != nullptr) {
    // Who was told by kvsize() that there is more may have used it; what kZero asks for is zero.
    const bool exact = has(flags, AllocFlags::kZero) || impl_->hardened.on();
    const std::size_t used = exact ? kept : held;
    unpoison_range(address, used);
    std::memcpy(moved, address, std::min(used, size_bytes));
    kvfree(address);
  }
  return moved;
}

// Wrong addresses ---------------------------------------------------------------------------------

void Pool::Impl::report_wrong(const void* address, const char* call) const {
  if (small->owns(address)) {
    report_wrong_small(address, call);
    return;
  }
  if (store->contains(address)) {
    report_wrong_direct(address, call);
    return;
  }
  const std::uint32_t frame = mapped_buffer_over(address);
  if (frame == kNoFrame) {
    window->report_wrong(address, call);  // Which knows the areas of buffers that are gone, too.
    return;
  }
  const FrameRecord& record = pages->record(Pfn(frame));
  BugReport report{.bug = Bug::kInteriorPointer,
                   .call = call,
                   .address = reinterpret_cast<std::uintptr_t>(address),
                   .area_start = reinterpret_cast<std::uintptr_t>(address_of(frame)),
                   .area_bytes = held_bytes(frame),
                   .owner = record.owner_name()};
  if (record.word().use == FrameUse::kCachedChain) {
    report.bug = report.address == report.area_start ? Bug::kDoubleFree : Bug::kUnknownAddress;
  }
  report_bug(report);
}

// First frame of the mapped buffer, live or idle, that the address lies in. The window's own owner
// of an area is the one for whom it was mapped, who may not be the buffer's any more.
std::uint32_t Pool::Impl::mapped_buffer_over(const void* address) const {
  const std::uintptr_t in_window = reinterpret_cast<std::uintptr_t>(address) - window_base;
  if (in_window >= window_bytes) {
    return kNoFrame;
  }
  const std::size_t most_back = std::min(in_window, config.kvmalloc_max_bytes) >> kPageShift;
  for (std::size_t back = 0; back <= most_back; ++back) {
    // Relaxed, as its declaration says.
    const std::uint32_t frame =
        area_frames[(in_window >> kPageShift) - back].load(std::memory_order_relaxed) - 1;
    if (frame != kNoFrame) {
      return back << kPageShift < held_bytes(frame) ? frame : kNoFrame;
    }
  }
  return kNoFrame;
}

void Pool::Impl::report_wrong_direct(const void* address, const char* call) const {
  const FrameInfo found = pages->find(store->pfn_of(address));
  BugReport report{.bug = Bug::kUnknownAddress,
                   .call = call,
                   .address = reinterpret_cast<std::uintptr_t>(address)};
  if (found.run.count != Pages(0)) {
    report.area_start = reinterpret_cast<std::uintptr_t>(store->address_of(found.run.first));
    report.area_bytes = bytes_of(found.run.count);
    report.owner = found.owner;
  }
  const bool starts = report.address == report.area_start;
  const bool gone = found.of == FrameUse::kFree || found.of == FrameUse::kAbsent;
  // Marks of small objects outlive their slab; a buffer that began there later is the newer one.
  if (gone && (!starts || found.owner == kSlabOwner) &&
      small->find(address).outcome == KmallocOutcome::kDouble) {
    report_wrong_small(address, call);
    return;
  }
  switch (found.of) {
    case FrameUse::kBuffer: report.bug = Bug::kInteriorPointer; break;
    case FrameUse::kFree:
    case FrameUse::kCached:
      // Inside an idle buffer, or one that is gone, nothing begins.
      report.bug = starts ? Bug::kDoubleFree : Bug::kUnknownAddress;
      break;
    // Its buffer has another address, in the window.
    case FrameUse::kChain:
    case FrameUse::kCachedChain:
    case FrameUse::kScattered: report.bug = Bug::kDirectMapAddress; break;
    default: break;
  }
  report_bug(report);
}

}  // namespace keel
