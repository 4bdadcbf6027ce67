// The public calls of a Pool, but for the tiers of kvmalloc (kvmalloc.cc).
#include "keel/alloc/pool.h"

#include <algorithm>
#include <bit>

#include "keel/base/check.h"
#include "keel/vmap/system_limits.h"
#include "pool_impl.h"

namespace keel {
namespace {

constexpr std::size_t kMinCapacityBytes = 64U << 10;

// Fills in defaults; a capacity of 0 afterwards means that the config is not valid.
PoolConfig complete(PoolConfig config) {
  if (config.capacity_bytes == 0) {
    config.capacity_bytes = machine_memory().value() / 2;
  }
  if (config.capacity_bytes < kMinCapacityBytes || !is_power_of_two(config.chunk_bytes)) {
    config.capacity_bytes = 0;
    return config;
  }
  config.chunk_bytes = std::min(config.chunk_bytes, std::bit_floor(config.capacity_bytes));
  config.capacity_bytes = round_down(config.capacity_bytes, config.chunk_bytes);
  return config;
}

}  // namespace

// Birth and death ---------------------------------------------------------------------------------

Result<std::unique_ptr<Pool>> Pool::create(const PoolConfig& config) {
  const PoolConfig completed = complete(config);
  if (completed.capacity_bytes == 0 || completed.initial_bytes > completed.capacity_bytes) {
    return Error{Errc::kInvalidArgument, 0, "pool of bytes", config.capacity_bytes};
  }
  std::unique_ptr<Impl> impl(new (std::nothrow) Impl);
  if (impl == nullptr) {
    return Error{Errc::kNoMemory, 0, "pool"};
  }
  const Status opened = impl->open(completed);
  if (!opened) {
    return opened.error();
  }
  std::unique_ptr<Pool> pool(new (std::nothrow) Pool(std::move(impl)));
  if (pool == nullptr) {
    return Error{Errc::kNoMemory, 0, "pool"};
  }
  return pool;
}

Pool::Pool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pool::~Pool() = default;

Status Pool::Impl::open(const PoolConfig& completed) {
  config = completed;
  auto made_store = FrameStore::create({.capacity_bytes = config.capacity_bytes,
                                        .chunk_bytes = config.chunk_bytes,
                                        .lock_memory = config.lock_memory,
                                        .dump_memory = config.dump_memory});
  if (!made_store) {
    return made_store.error();
  }
  store = std::move(*made_store);
  auto made_window =
      Window::create(*store, {.bytes = config.window_bytes, .max_mappings = config.max_mappings});
  if (!made_window) {
    return made_window.error();
  }
  window = std::move(*made_window);
  auto made_pages = PageAllocator::create(store->capacity());
  if (!made_pages) {
    return made_pages.error();
  }
  pages = std::move(*made_pages);
  MutexLock lock(grow_lock);
  while (bytes_of(store->populated()) < config.initial_bytes) {
    if (!grow()) {
      return Error{Errc::kNoMemory, 0, "populating the pool's initial bytes", config.initial_bytes};
    }
  }
  return {};
}

Pool& default_pool() {
  // Never destroyed: buffers may be freed by destructors of static objects, in any order.
  static Pool* const pool = [] {
    auto made = Pool::create({});
    KEEL_CHECK(made.ok(), "creating the default pool failed");
    return std::move(*made).release();
  }();
  return *pool;
}

void* kvmalloc(std::size_t size_bytes, AllocFlags flags, const char* owner) {
  return default_pool().kvmalloc(size_bytes, flags, owner);
}
void kvfree(void* address) { default_pool().kvfree(address); }

// Free and lookup ---------------------------------------------------------------------------------

void Pool::kvfree(void* address) {
  if (address == nullptr || !owned_by_this_process()) {
    return;
  }
  if (impl_->store->contains(address)) {
    impl_->free_contiguous(address);
    return;
  }
  VmapArea area;
  if (impl_->window->unmap(address, &area, "kvfree")) {
    // Only now: a frame that is free must have no alias that is not in the lazy list (trim).
    impl_->pages->free_chain(Pfn(area.cookie));
    PoolCounters::bump(impl_->counters.frees);
  }
}

void Pool::Impl::free_contiguous(const void* address) {
  const Pfn frame = store->pfn_of(address);
  const bool aligned = reinterpret_cast<std::uintptr_t>(address) % kPageBytes == 0;
  const FrameInfo found = aligned ? pages->free(frame) : pages->find(frame);
  if (aligned && found.use == FrameUse::kBuffer) {
    PoolCounters::bump(counters.frees);
  } else {
    report_wrong_direct(address, found, "kvfree");
  }
}

void Pool::Impl::report_wrong_direct(const void* address, const FrameInfo& found,
                                     const char* call) const {
  BugReport report{.bug = Bug::kUnknownAddress,
                   .call = call,
                   .address = reinterpret_cast<std::uintptr_t>(address)};
  if (found.run.count != Pages(0)) {
    report.area_start = reinterpret_cast<std::uintptr_t>(store->address_of(found.run.first));
    report.area_bytes = bytes_of(found.run.count);
    report.owner = found.owner;
  }
  if (found.use == FrameUse::kBuffer || found.use == FrameUse::kBody) {
    report.bug = Bug::kInteriorPointer;
  } else if (found.use == FrameUse::kFree && report.area_bytes != 0) {
    report.bug = Bug::kDoubleFree;
  }
  if (found.scattered) {
    report.bug = Bug::kDirectMapAddress;  // Its buffer has another address, in the window.
  }
  report_bug(report);
}

bool Pool::owned_by_this_process() const { return impl_->store->owned_by_this_process(); }

std::size_t Pool::kvsize(const void* address) const {
  if (address == nullptr) {
    return 0;
  }
  if (!impl_->store->contains(address)) {
    if (const auto area = impl_->window->find(address)) {
      return bytes_of(area->pages);
    }
    impl_->window->report_wrong(address, "kvsize");
    return 0;
  }
  const FrameInfo found = impl_->pages->find(impl_->store->pfn_of(address));
  const bool aligned = reinterpret_cast<std::uintptr_t>(address) % kPageBytes == 0;
  if (aligned && found.use == FrameUse::kBuffer) {
    return bytes_of(found.run.count);
  }
  impl_->report_wrong_direct(address, found, "kvsize");
  return 0;
}

bool Pool::is_contiguous(const void* address) const {
  if (!impl_->store->contains(address)) {
    return false;
  }
  const bool aligned = reinterpret_cast<std::uintptr_t>(address) % kPageBytes == 0;
  return aligned && impl_->pages->find(impl_->store->pfn_of(address)).use == FrameUse::kBuffer;
}

// Purge and trim ----------------------------------------------------------------------------------

void Pool::purge() { (void)impl_->window->purge(); }

Bytes Pool::trim() {
  if (!owned_by_this_process()) {
    return Bytes(0);
  }
  MutexLock lock(impl_->grow_lock);
  const Pages chunk = impl_->store->chunk();
  // One chunk at a time, so that no list of chunks is needed; after the first, a purge finds only
  // what was freed meanwhile.
  Bytes given{};
  for (Pfn first{}; first.value() < impl_->store->capacity().value(); first += chunk) {
    const FrameRun run{first, chunk};
    if (!impl_->pages->remove(run)) {
      continue;
    }
    // Nobody can use its frames now, and what aliases they have are lazy: a purge ends them all.
    if (impl_->window->purge().ok() && impl_->store->trim(run).ok()) {
      given += Bytes(bytes_of(chunk));
    } else {
      impl_->pages->add(run);
    }
  }
  return given;
}

// Reports -----------------------------------------------------------------------------------------

PoolStats Pool::stats() const {
  const auto read = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  const PoolCounters& counters = impl_->counters;
  const WindowStats window = impl_->window->stats();
  PoolStats stats;
  stats.contiguous_allocations = read(counters.contiguous);
  stats.vmalloc_allocations = read(counters.vmalloc);
  stats.failures = read(counters.failures);
  stats.nofail_warnings = read(counters.nofail_warnings);
  stats.frees = read(counters.frees);
  stats.inline_growths = read(counters.inline_growths);
  stats.purges = window.purges;
  stats.purged_pages = window.purged_pages;
  stats.purge_calls = window.purge_calls;
  stats.mappings = window.mappings;
  stats.capacity = Bytes(bytes_of(impl_->store->capacity()));
  const PageCounts counts = impl_->pages->counts();
  stats.populated = Bytes(bytes_of(counts.present));
  stats.free = Bytes(bytes_of(counts.free));
  stats.live = stats.populated - stats.free;
  stats.lazy = Bytes(bytes_of(window.lazy));
  return stats;
}

void Pool::audit() const {
  impl_->store->audit();
  impl_->window->audit();
  impl_->pages->audit();
  KEEL_CHECK(impl_->store->populated() == impl_->pages->counts().present,
             "populated pages, in the store and in the page allocator",
             impl_->store->populated().value(), impl_->pages->counts().present.value());
}

}  // namespace keel
