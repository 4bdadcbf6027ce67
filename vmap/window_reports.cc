// What a window can tell: lookups, reports of wrong calls, the dump, counters, the audit.
#include <array>

#include "window_impl.h"

namespace keel {
namespace {

VmapState state_of(RangeState state) {
  switch (state) {
    case RangeState::kMapping: return VmapState::kMapping;
    case RangeState::kLive: return VmapState::kLive;
    case RangeState::kLazy: return VmapState::kLazy;
    default: return VmapState::kPurging;
  }
}

}  // namespace

const char* to_string(VmapState state) {
  switch (state) {
    case VmapState::kMapping: return "mapping";
    case VmapState::kLive: return "live";
    case VmapState::kLazy: return "lazy";
    case VmapState::kPurging: return "purging";
  }
  return "unknown";
}

// Lookups -----------------------------------------------------------------------------------------

// For who owns the area, or holds its shard's lock: the entry does not change meanwhile.
VmapArea Window::Impl::describe(PageIndex area) const {
  const RangeEntry& head = space.entry(area);
  return {.start = address_of(area),
          .pages = Pages(head.pages() - (head.guard() ? 1U : 0U)),
          .owner = head.owner,
          .cookie = head.cookie()};
}

// Acquire pairs with the release in publish_live(): what stands beside the tag is the area's.
std::optional<VmapArea> Window::find(const void* address) const {
  if (!impl_->is_page(address)) {
    return std::nullopt;
  }
  const PageIndex page = impl_->page_of(address);
  const std::uint32_t tag = impl_->space.entry(page).tag.load(std::memory_order_acquire);
  if (tag != RangeEntry::tag_of(RangeState::kLive, tag >> 4)) {
    return std::nullopt;
  }
  return impl_->describe(page);
}

bool Window::contains(const void* address) const { return impl_->contains(address); }
std::byte* Window::base() const { return impl_->base; }

// Wrong calls -------------------------------------------------------------------------------------

void Window::report_wrong(const void* address, const char* call) const {
  report_bug(impl_->diagnose(address, call));  // Outside the locks: the handler may call anything.
}

BugReport Window::Impl::diagnose(const void* address, const char* call) const {
  BugReport report{.bug = Bug::kUnknownAddress,
                   .call = call,
                   .address = reinterpret_cast<std::uintptr_t>(address)};
  if (store.contains(address)) {
    report.bug = Bug::kDirectMapAddress;
    return report;
  }
  if (!contains(address)) {
    return report;
  }
  const PageIndex page = page_of(address);
  const bool aligned = report.address % kPageBytes == 0;
  // Under all locks: an area may reach into this shard from one before.
  const AddressSpace::AllLocks all(space);
  const auto area = space.shard_of(page).with_all_locks().area_containing(page);
  const RangeEntry& head = space.entry(area.value_or(page));
  // A free page knows the pages of the last area that began there, in place of its mappings.
  const std::uint32_t pages = area ? head.pages() : head.number();
  if (pages == 0) {
    return report;
  }
  report.area_start = reinterpret_cast<std::uintptr_t>(address_of(area.value_or(page)));
  report.area_bytes = std::uint64_t{pages - (head.guard() ? 1U : 0U)} << kPageShift;
  report.owner = head.owner;
  if (area && head.state() == RangeState::kLive) {
    report.bug = Bug::kInteriorPointer;
  } else if (aligned && area.value_or(page) == page && head.state() != RangeState::kMapping) {
    report.bug = Bug::kDoubleFree;
  }
  return report;
}

// The dump ----------------------------------------------------------------------------------------

VmapRange Window::Impl::show(const RangeTable& table, PageIndex area) const {
  const RangeEntry& head = table.at(area);
  VmapRange range{.area = describe(area),
                  .state = state_of(head.state()),
                  .guard = head.guard(),
                  .in_block = table.in_block(area),
                  .runs = head.number()};
  if (head.state() != RangeState::kLive) {
    range.area.cookie = 0;  // Its place holds something else then.
  }
  return range;
}

// As many areas from the cursor on as the batch takes, or as one short walk finds.
std::size_t Window::Impl::gather(Shard& shard, PageIndex& cursor,
                                 std::span<VmapRange> batch) const {
  MutexLock guard(shard.lock);
  std::size_t found = 0;
  while (found < batch.size()) {
    const auto area = shard.table.next_area(cursor);
    if (!area) {
      break;
    }
    batch[found++] = show(shard.table, *area);
  }
  return found;
}

void Window::visit_ranges(VmapVisitor& visitor) const {
  std::array<VmapRange, 32> batch;
  for (unsigned i = 0; i < impl_->space.count(); ++i) {
    const PageIndex end = impl_->space.end_of(i);
    for (PageIndex cursor = 0; cursor < end;) {
      const std::size_t found = impl_->gather(impl_->space.shard(i), cursor, batch);
      for (std::size_t j = 0; j < found; ++j) {
        visitor.visit(batch[j]);
      }
    }
  }
}

// Counters and audit ------------------------------------------------------------------------------

Pages Window::lazy_pages() const {
  return Pages(impl_->space.totals().lazy_pages.load(std::memory_order_relaxed));
}

WindowStats Window::stats() const {
  WindowStats stats;
  const auto relaxed = std::memory_order_relaxed;  // Counts; they publish nothing.
  stats.map_retries = impl_->map_retries.load(relaxed);
  stats.purges = impl_->purges.load(relaxed);
  stats.purged_pages = impl_->purged_pages.load(relaxed);
  stats.purge_slices = impl_->purge_slices.load(relaxed);
  stats.purge_calls = impl_->purge_calls.load(relaxed);
  stats.purge_failures = impl_->purge_failures.load(relaxed);
  stats.max_mappings = impl_->max_mappings;
  const AddressSpace::AllLocks all(impl_->space);
  stats.mappings = impl_->space.totals().mappings.load(relaxed) - impl_->space.gaps_counted_twice();
  for (unsigned i = 0; i < impl_->space.count(); ++i) {
    Shard& shard = impl_->space.shard(i);
    stats.maps += shard.maps_with_all_locks();
    stats.lazy += Pages(shard.with_all_locks().lazy_pages());
    stats.free += Pages(shard.with_all_locks().free_pages());
  }
  stats.live = Pages(impl_->space.pages()) - stats.free - stats.lazy;
  stats.tables = Bytes((stats.live + stats.lazy).value() * sizeof(RangeEntry));
  return stats;
}

void Window::audit() const {
  impl_->space.audit();
  const std::uint64_t mappings =
      impl_->space.totals().mappings.load(std::memory_order_relaxed);  // A count.
  KEEL_CHECK(mappings <= impl_->max_mappings, "mappings past the budget", mappings,
             impl_->max_mappings);
}

}  // namespace keel
