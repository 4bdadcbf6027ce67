#include "keel/vmap/window.h"

#include <sys/mman.h>

#include <atomic>
#include <bit>

#include "keel/base/check.h"
#include "keel/base/mutex.h"
#include "keel/base/percpu.h"
#include "keel/vmap/frame_store.h"
#include "keel/vmap/system_limits.h"
#include "range_table.h"

namespace keel {
namespace {

constexpr std::size_t kMinWindowBytes = 1U << 20;

// Bounds one call of a purge (16 MiB), and with it the walk under the window's lock.
constexpr std::uint32_t kSlicePages = 4096;

// All of the window that maps nothing looks the same to the kernel, so that it is one mapping again
// as soon as the aliases between are gone.
constexpr int kReserveFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

std::uint64_t default_lazy_max() {
  constexpr std::uint64_t kPerDoubling = (32U << 20) / kPageBytes;
  return kPerDoubling * static_cast<std::uint64_t>(std::bit_width(possible_cpus()));
}

// What a list of frames costs to map.
struct Shape {
  std::uint64_t pages = 0;
  std::uint64_t runs = 0;
};

bool purge_may_help(const Error& error) {
  return error.code == Errc::kNoAddressSpace || error.code == Errc::kNoMappings ||
         error.code == Errc::kNoMemory;
}

}  // namespace

struct Window::Impl : MetadataObject {
  Impl(const FrameStore& frame_store, const WindowConfig& window_config)
      : store(frame_store),
        bytes(window_config.bytes),
        max_mappings(window_config.max_mappings != 0 ? window_config.max_mappings
                                                     : max_map_count() / 2),
        lazy_max(window_config.lazy_max.value() != 0 ? window_config.lazy_max.value()
                                                     : default_lazy_max()) {}
  ~Impl();

  Status open() KEEL_EXCLUDES(lock);

  [[nodiscard]] Result<Shape> measure(JoinedSource& frames) const;
  [[nodiscard]] Result<void*> try_map(JoinedSource& frames, const Shape& shape,
                                      const MapOptions& options) KEEL_EXCLUDES(lock);
  [[nodiscard]] Result<PageIndex> reserve(const Shape& shape, const MapOptions& options)
      KEEL_EXCLUDES(lock);
  [[nodiscard]] Status install(JoinedSource& frames, PageIndex area, std::uint64_t pages) const;
  void undo(PageIndex area, std::uint64_t pages) KEEL_EXCLUDES(lock);
  [[nodiscard]] int map_nothing(PageIndex first, std::uint64_t pages) const;

  Status purge() KEEL_EXCLUDES(purge_lock, lock);
  [[nodiscard]] int purge_slice(const PurgeSlice& slice) KEEL_REQUIRES(purge_lock)
      KEEL_EXCLUDES(lock);
  void purge_past_threshold() KEEL_EXCLUDES(purge_lock, lock);
  [[nodiscard]] std::uint64_t purged_so_far() KEEL_EXCLUDES(lock);

  [[nodiscard]] std::byte* address_of(PageIndex page) const {
    return base + (std::size_t{page} << kPageShift);
  }
  [[nodiscard]] bool contains(const void* address) const {
    const auto* at = static_cast<const std::byte*>(address);
    return at >= base && at < base + bytes;
  }
  [[nodiscard]] PageIndex page_of(const void* address) const {
    return static_cast<PageIndex>(
        static_cast<std::size_t>(static_cast<const std::byte*>(address) - base) >> kPageShift);
  }
  [[nodiscard]] std::optional<PageIndex> live_area_at(const void* address) const
      KEEL_REQUIRES(lock);
  [[nodiscard]] VmapArea describe(PageIndex area) const KEEL_REQUIRES(lock);
  [[nodiscard]] BugReport diagnose(const void* address, const char* call) const KEEL_REQUIRES(lock);

  const FrameStore& store;
  const std::size_t bytes;
  const std::uint64_t max_mappings;
  const std::uint64_t lazy_max;
  std::byte* base = nullptr;

  Mutex purge_lock{LockRank::kPurge};
  // A hint that spares map() a wait at the threshold; relaxed, nothing is published with it.
  std::atomic<bool> purging{false};

  mutable Mutex lock{LockRank::kWindow};
  RangeTable table KEEL_GUARDED_BY(lock);
  WindowStats counters KEEL_GUARDED_BY(lock);
};

// Birth and death ---------------------------------------------------------------------------------

Result<std::unique_ptr<Window>> Window::create(const FrameStore& store,
                                               const WindowConfig& config) {
  const std::uint64_t pages = config.bytes >> kPageShift;
  if (config.bytes < kMinWindowBytes || config.bytes % kPageBytes != 0 || pages > kMaxWindowPages) {
    return Error{Errc::kInvalidArgument, 0, "window of bytes", config.bytes};
  }
  std::unique_ptr<Impl> impl(new (std::nothrow) Impl(store, config));
  if (impl == nullptr) {
    return Error{Errc::kNoMemory, 0, "window"};
  }
  const Status opened = impl->open();
  if (!opened) {
    return opened.error();
  }
  std::unique_ptr<Window> window(new (std::nothrow) Window(std::move(impl)));
  if (window == nullptr) {
    return Error{Errc::kNoMemory, 0, "window"};
  }
  return window;
}

Window::Window(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Window::~Window() = default;

Status Window::Impl::open() {
  void* mapped = nullptr;
  const int error = os().mmap(nullptr, bytes, PROT_NONE, kReserveFlags, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the window, bytes", bytes);
  }
  base = static_cast<std::byte*>(mapped);
  MutexLock guard(lock);
  return table.open(static_cast<std::uint32_t>(bytes >> kPageShift));
}

Window::Impl::~Impl() {
  if (base != nullptr && store.owned_by_this_process()) {
    (void)os().munmap(base, bytes);  // Cannot be helped if it fails.
  }
}

// Map ---------------------------------------------------------------------------------------------

Result<void*> Window::map(std::span<const Pfn> frames, const MapOptions& options) {
  PfnSource source(frames);
  return map(source, options);
}

Result<void*> Window::map(FrameSource& frames, const MapOptions& options) {
  if (!impl_->store.owned_by_this_process()) {
    return Error{Errc::kForked, 0, "map in a parent's window", 0};
  }
  JoinedSource joined(frames);
  const Result<Shape> shape = impl_->measure(joined);
  if (!shape) {
    return shape.error();
  }
  impl_->purge_past_threshold();
  for (;;) {
    const std::uint64_t purged_before = impl_->purged_so_far();
    Result<void*> mapped = impl_->try_map(joined, *shape, options);
    if (mapped.ok() || !purge_may_help(mapped.error())) {
      return mapped;
    }
    // Its own error would say less than why the mapping failed.
    (void)impl_->purge();
    // Another thread's purge is as good as this one's. If none removed anything since before the
    // attempt, another attempt would fail the same way.
    if (impl_->purged_so_far() == purged_before) {
      return mapped;
    }
    MutexLock guard(impl_->lock);
    ++impl_->counters.map_retries;
  }
}

Result<Shape> Window::Impl::measure(JoinedSource& frames) const {
  Shape shape;
  FrameRun run;
  frames.rewind();
  while (frames.next(run)) {
    if (run.end().value() > store.capacity().value()) {
      return Error{Errc::kInvalidArgument, 0, "map of a frame beyond the store", run.first.value()};
    }
    shape.pages += run.count.value();
    ++shape.runs;
  }
  if (shape.pages == 0) {
    return Error{Errc::kInvalidArgument, 0, "map of no frames"};
  }
  return shape;
}

Result<void*> Window::Impl::try_map(JoinedSource& frames, const Shape& shape,
                                    const MapOptions& options) {
  const Result<PageIndex> area = reserve(shape, options);
  if (!area) {
    return area.error();
  }
  const Status installed = install(frames, *area, shape.pages);
  if (!installed) {
    undo(*area, shape.pages);
    return installed.error();
  }
  MutexLock guard(lock);
  table.set_live(*area, options.cookie);
  ++counters.maps;
  return static_cast<void*>(address_of(*area));
}

Result<PageIndex> Window::Impl::reserve(const Shape& shape, const MapOptions& options) {
  // Aliases, and the gap that they leave behind themselves.
  const std::uint64_t mappings = shape.runs + 1;
  const std::uint64_t pages = shape.pages + (options.guard ? 1 : 0);
  MutexLock guard(lock);
  if (table.mappings() + mappings > max_mappings) {
    return Error{Errc::kNoMappings, 0, "window's budget of mappings", max_mappings};
  }
  std::optional<PageIndex> area;
  if (pages <= table.pages()) {
    area = table.begin_area(static_cast<std::uint32_t>(pages), static_cast<std::uint32_t>(mappings),
                            options.owner, options.guard);
  }
  if (!area) {
    return Error{Errc::kNoAddressSpace, 0, "no room in the window for pages", pages};
  }
  return *area;
}

Status Window::Impl::install(JoinedSource& frames, PageIndex area, std::uint64_t pages) const {
  std::byte* at = address_of(area);
  FrameRun run;
  frames.rewind();
  while (frames.next(run)) {
    void* mapped = nullptr;
    const int error = os().mmap(at, bytes_of(run.count), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_FIXED | MAP_POPULATE, store.fd(),
                                bytes_of(run.first - Pfn(0)), &mapped);
    if (error < 0) {
      return system_error(-error, "mmap of an alias, pages", run.count.value());
    }
    at += bytes_of(run.count);
  }
  // Each mapping is born without them. One call each covers the area, however many runs it has.
  for (const int advice : {MADV_DONTFORK, MADV_DONTDUMP}) {
    const int error = os().madvise(address_of(area), pages << kPageShift, advice);
    if (error < 0) {
      return system_error(-error, "madvise of an area, pages", pages);
    }
  }
  return {};
}

// Covers the run whose mmap failed too: kernels before 6.12 may have unmapped its place by then,
// and a hole must not stay.
void Window::Impl::undo(PageIndex area, std::uint64_t pages) {
  const int error = map_nothing(area, pages);
  MutexLock guard(lock);
  if (error == 0) {
    table.cancel(area);
  } else {
    table.set_lazy(area);
  }
}

int Window::Impl::map_nothing(PageIndex first, std::uint64_t pages) const {
  void* mapped = nullptr;
  return os().mmap(address_of(first), pages << kPageShift, PROT_NONE, kReserveFlags | MAP_FIXED, -1,
                   0, &mapped);
}

// Unmap -------------------------------------------------------------------------------------------

bool Window::unmap(const void* address, VmapArea* out, const char* call) {
  {
    MutexLock guard(impl_->lock);
    if (const auto area = impl_->live_area_at(address)) {
      if (out != nullptr) {
        *out = impl_->describe(*area);
      }
      impl_->table.set_lazy(*area);
      return true;
    }
  }
  report_wrong(address, call);
  return false;
}

std::optional<VmapArea> Window::find(const void* address) const {
  MutexLock guard(impl_->lock);
  if (const auto area = impl_->live_area_at(address)) {
    return impl_->describe(*area);
  }
  return std::nullopt;
}

bool Window::contains(const void* address) const { return impl_->contains(address); }
std::byte* Window::base() const { return impl_->base; }

void Window::report_wrong(const void* address, const char* call) const {
  BugReport report{};
  {
    MutexLock guard(impl_->lock);
    report = impl_->diagnose(address, call);
  }
  report_bug(report);  // Outside the lock: the handler may call anything.
}

std::optional<PageIndex> Window::Impl::live_area_at(const void* address) const {
  if (!contains(address) || reinterpret_cast<std::uintptr_t>(address) % kPageBytes != 0 ||
      table.at(page_of(address)).state() != RangeState::kLive) {
    return std::nullopt;
  }
  return page_of(address);
}

VmapArea Window::Impl::describe(PageIndex area) const {
  const RangeEntry& head = table.at(area);
  return {.start = address_of(area),
          .pages = Pages(head.pages() - (head.guard() ? 1U : 0U)),
          .owner = head.owner,
          .cookie = head.cookie()};
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
  const std::optional<PageIndex> area = table.area_containing(page);
  const RangeEntry& head = table.at(area.value_or(page));
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

// Purge -------------------------------------------------------------------------------------------

Status Window::purge() {
  if (!impl_->store.owned_by_this_process()) {
    return Error{Errc::kForked, 0, "purge of a parent's window", 0};
  }
  return impl_->purge();
}

Status Window::Impl::purge() {
  MutexLock one_at_a_time(purge_lock);
  purging.store(true, std::memory_order_relaxed);  // A hint only.
  std::uint32_t areas_left = 0;
  {
    MutexLock guard(lock);
    areas_left = table.lazy_areas();  // Later ones are not waited for: they might never end.
  }
  int first_error = 0;
  bool removed = false;
  while (areas_left != 0) {
    std::optional<PurgeSlice> slice;
    {
      MutexLock guard(lock);
      slice = table.claim_lazy(kSlicePages);
    }
    if (!slice) {
      break;
    }
    const int error = purge_slice(*slice);
    removed = removed || error == 0;
    first_error = first_error != 0 ? first_error : error;
    areas_left -= slice->areas < areas_left ? slice->areas : areas_left;
  }
  purging.store(false, std::memory_order_relaxed);  // A hint only.
  if (removed) {
    MutexLock guard(lock);
    ++counters.purges;
  }
  if (first_error < 0) {
    return system_error(-first_error, "mapping nothing over lazy aliases");
  }
  return {};
}

int Window::Impl::purge_slice(const PurgeSlice& slice) {
  const int error = map_nothing(slice.first, slice.pages);
  MutexLock guard(lock);
  ++counters.purge_calls;
  if (error < 0) {
    ++counters.purge_failures;
    table.abandon_purge(slice);
  } else {
    counters.purged_pages += slice.area_pages;
    table.finish_purge(slice);
  }
  return error;
}

void Window::Impl::purge_past_threshold() {
  if (purging.load(std::memory_order_relaxed)) {  // Someone is at it already; a hint only.
    return;
  }
  {
    MutexLock guard(lock);
    if (table.lazy_pages() <= lazy_max) {
      return;
    }
  }
  (void)purge();  // What it could not remove is still lazy, and this mapping does not need it.
}

std::uint64_t Window::Impl::purged_so_far() {
  MutexLock guard(lock);
  return counters.purged_pages;
}

// Reports -----------------------------------------------------------------------------------------

WindowStats Window::stats() const {
  MutexLock guard(impl_->lock);
  WindowStats stats = impl_->counters;
  stats.mappings = impl_->table.mappings();
  stats.max_mappings = impl_->max_mappings;
  stats.lazy = Pages(impl_->table.lazy_pages());
  stats.free = Pages(impl_->table.free_pages());
  stats.live = Pages(impl_->table.pages()) - stats.free - stats.lazy;
  return stats;
}

void Window::audit() const {
  MutexLock guard(impl_->lock);
  impl_->table.audit();
  KEEL_CHECK(impl_->table.mappings() <= impl_->max_mappings, "mappings past the budget",
             impl_->table.mappings(), impl_->max_mappings);
}

}  // namespace keel
