// Window: its birth and death, map() and unmap().
#include "keel/vmap/window.h"

#include <sys/mman.h>

#include <bit>

#include "keel/base/percpu.h"
#include "keel/vmap/system_limits.h"
#include "window_impl.h"

namespace keel {
namespace {

constexpr std::size_t kMinWindowBytes = 1U << 20;

// Attempts of one map() after the first. Where others unmap all the while each purge removes
// something, which need not help.
constexpr unsigned kMostRetries = 8;

// All of the window that maps nothing looks the same to the kernel, so that it is one mapping again
// as soon as the aliases between are gone.
constexpr int kReserveFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

std::uint64_t default_lazy_max() {
  constexpr std::uint64_t kPerDoubling = (32U << 20) / kPageBytes;
  return kPerDoubling * static_cast<std::uint64_t>(std::bit_width(possible_cpus()));
}

std::uint64_t area_pages(const FrameListShape& shape, const MapOptions& options) {
  return shape.pages + (options.guard ? 1 : 0);
}

bool purge_may_help(const Error& error) {
  return error.code == Errc::kNoAddressSpace || error.code == Errc::kNoMappings ||
         error.code == Errc::kNoMemory;
}

}  // namespace

// Birth and death ---------------------------------------------------------------------------------

Window::Impl::Impl(const FrameStore& frame_store, const WindowConfig& config)
    : store(frame_store),
      bytes(config.bytes),
      max_mappings(config.max_mappings != 0 ? config.max_mappings : max_map_count() / 2),
      lazy_max(config.lazy_max.value() != 0 ? config.lazy_max.value() : default_lazy_max()),
      copies_mappings(!config.from_file && !frame_store.locks_memory()) {}

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
  const Status opened = impl->open(config.shards);
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

Status Window::Impl::open(unsigned shards) {
  void* mapped = nullptr;
  const int error = os().mmap(nullptr, bytes, PROT_NONE, kReserveFlags, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the window, bytes", bytes);
  }
  base = static_cast<std::byte*>(mapped);
  return space.open(static_cast<std::uint32_t>(bytes >> kPageShift), shards);
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
  const Result<FrameListShape> shape = impl_->measure(joined);
  if (!shape) {
    return shape.error();
  }
  if (const Status possible = impl_->check_shape(*shape, options); !possible) {
    return possible.error();
  }
  // The first attempt leaves the shards and their blocks as they are: a purge most often gives
  // what it did not find.
  for (unsigned retries = 0;; ++retries) {
    const bool everywhere = retries != 0;
    const std::uint64_t purged_before = impl_->purged_pages.load(std::memory_order_relaxed);
    Result<void*> mapped = impl_->try_map(joined, *shape, options, everywhere);
    if (mapped.ok() || !purge_may_help(mapped.error()) || retries == kMostRetries) {
      return mapped;
    }
    // Its own error would say less than why the mapping failed.
    (void)impl_->purge();
    // Another thread's purge is as good as this one's. If none removed anything since before the
    // attempt, another attempt would fail the same way, unless it looks further.
    if (impl_->purged_pages.load(std::memory_order_relaxed) != purged_before) {
      impl_->map_retries.fetch_add(1, std::memory_order_relaxed);
    } else if (everywhere || mapped.error().code != Errc::kNoAddressSpace) {
      return mapped;
    }
  }
}

Result<FrameListShape> Window::Impl::measure(JoinedSource& frames) const {
  FrameListShape shape;
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

// What no purge makes possible.
Status Window::Impl::check_shape(const FrameListShape& shape, const MapOptions& options) const {
  const std::uint64_t pages = area_pages(shape, options);
  if (pages > space.pages()) {
    return Error{Errc::kNoAddressSpace, 0, "no room in the window for pages", pages};
  }
  if (shape.runs + 1 > max_mappings) {
    return Error{Errc::kNoMappings, 0, "window's budget of mappings", max_mappings};
  }
  return {};
}

Result<void*> Window::Impl::try_map(JoinedSource& frames, const FrameListShape& shape,
                                    const MapOptions& options, bool everywhere) {
  const Result<PageIndex> area = reserve(shape, options, everywhere);
  if (!area) {
    return area.error();
  }
  const Status installed = install(frames, *area, shape.pages);
  if (!installed) {
    undo(*area, shape.pages);
    return installed.error();
  }
  Shard& shard = space.shard_of(*area);
  MutexLock guard(shard.lock);
  shard.table.set_live(*area, static_cast<std::uint32_t>(shape.runs), options.cookie);
  ++shard.maps;
  return static_cast<void*>(address_of(*area));
}

// By compare and exchange, so that who asks for too much never makes others seem to.
bool Window::Impl::charge_mappings(std::uint64_t count) {
  std::atomic<std::uint64_t>& charged = space.totals().mappings;
  std::uint64_t before = charged.load(std::memory_order_relaxed);  // A count, as below.
  do {
    if (before + count > max_mappings) {
      return false;
    }
  } while (!charged.compare_exchange_weak(before, before + count, std::memory_order_relaxed));
  return true;
}

Result<PageIndex> Window::Impl::reserve(const FrameListShape& shape, const MapOptions& options,
                                        bool everywhere) {
  // Aliases, and at most one gap more than before.
  const std::uint64_t mappings = shape.runs + 1;
  const std::uint64_t pages = area_pages(shape, options);
  if (!charge_mappings(mappings)) {
    return Error{Errc::kNoMappings, 0, "window's budget of mappings", max_mappings};
  }
  const AreaRequest request{.pages = static_cast<std::uint32_t>(pages),
                            .mappings = static_cast<std::uint32_t>(shape.runs),
                            .owner = options.owner,
                            .guard = options.guard};
  std::optional<PageIndex> area;
  if (past_threshold() && !(area = space.begin_over_lazy(request))) {
    purge_for(pages);
  }
  if (!area) {
    area = space.begin(request, everywhere);
  }
  if (!area) {
    space.totals().mappings.fetch_sub(mappings, std::memory_order_relaxed);
    return Error{Errc::kNoAddressSpace, 0, "no room in the window for pages", pages};
  }
  return *area;
}

// A copy of a piece of the direct map, which brings that mapping's advice with it: an alias is
// never without MADV_DONTFORK, not even while it is being made. A copy of locked memory would be
// locked and counted once more; there it is a mapping of the file.
int Window::Impl::alias(const FrameRun& run, std::byte* at) const {
  void* mapped = nullptr;
  if (!copies_mappings) {
    return os().mmap(at, bytes_of(run.count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                     store.fd(), bytes_of(run.first - Pfn(0)), &mapped);
  }
  return os().mremap(store.address_of(run.first), 0, bytes_of(run.count),
                     MREMAP_MAYMOVE | MREMAP_FIXED, at, &mapped);
}

Status Window::Impl::install(JoinedSource& frames, PageIndex area, std::uint64_t pages) const {
  std::byte* at = address_of(area);
  FrameRun run;
  frames.rewind();
  while (frames.next(run)) {
    if (const int error = alias(run, at); error < 0) {
      return system_error(-error, "mapping an alias, pages", run.count.value());
    }
    at += bytes_of(run.count);
  }
  // One call each covers the area, however many runs it has. Reading fills the page tables with
  // writable entries, as the mappings are shared, and many at a time, which writing does not.
  const struct {
    int advice;
    bool needed;
  } calls[] = {{MADV_DONTFORK, !copies_mappings},
               {MADV_DONTDUMP, !copies_mappings || store.dumps_memory()},
               {MADV_POPULATE_READ, true}};
  for (const auto& call : calls) {
    const int error =
        call.needed ? os().madvise(address_of(area), pages << kPageShift, call.advice) : 0;
    if (error < 0) {
      return system_error(-error, "madvise of an area, pages", pages);
    }
  }
  return {};
}

// Covers the run whose mapping failed too: the kernel may have unmapped its place by then, and a
// hole must not stay.
void Window::Impl::undo(PageIndex area, std::uint64_t pages) {
  const int error = map_nothing(area, pages);
  Shard& shard = space.shard_of(area);
  {
    MutexLock guard(shard.lock);
    if (error < 0) {
      shard.table.set_lazy(area);
      return;
    }
    if (!shard.table.is_spanning(area)) {
      shard.table.cancel(area);
      return;
    }
  }
  space.free_spanning(area);
}

int Window::Impl::map_nothing(PageIndex first, std::uint64_t pages) const {
  void* mapped = nullptr;
  return os().mmap(address_of(first), pages << kPageShift, PROT_NONE, kReserveFlags | MAP_FIXED, -1,
                   0, &mapped);
}

// Unmap -------------------------------------------------------------------------------------------

bool Window::unmap(const void* address, VmapArea* out, const char* call) {
  if (impl_->is_page(address)) {
    const PageIndex page = impl_->page_of(address);
    Shard& shard = impl_->space.shard_of(page);
    MutexLock guard(shard.lock);
    if (shard.table.at(page).state() == RangeState::kLive) {
      if (out != nullptr) {
        *out = impl_->describe(page);
      }
      shard.table.set_lazy(page);
      return true;
    }
  }
  report_wrong(address, call);
  return false;
}

}  // namespace keel
