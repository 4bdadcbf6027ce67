// A Pool's birth and death, and its calls that have no file of their own (see pool_impl.h).
#include "keel/alloc/pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <limits>
#include <typeinfo>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/base/wait_word.h"
#include "keel/vmap/system_limits.h"
#include "patience.h"
#include "poison.h"
#include "pool_impl.h"

namespace keel {
namespace {

constexpr std::size_t kMinCapacityBytes = 64U << 10;
// A record's count of bytes holds no more.
constexpr std::size_t kMostBytes = std::numeric_limits<std::uint32_t>::max();

// Fills in defaults; a capacity of 0 afterwards means that the config is not valid.
PoolConfig complete(PoolConfig config) {
  if (config.capacity_bytes == 0) {
    // The frame store is a file. Where none may be of the least size either, create() says so.
    const Bytes most = std::min(Bytes(machine_memory().value() / 2), max_file_bytes());
    config.capacity_bytes = std::max(most.value(), std::uint64_t{kMinCapacityBytes});
  }
  if (config.capacity_bytes < kMinCapacityBytes || !is_power_of_two(config.chunk_bytes)) {
    config.capacity_bytes = 0;
    return config;
  }
  config.kvmalloc_max_bytes = std::min(config.kvmalloc_max_bytes, kMostBytes);
  // Which tells Valgrind of every object by itself.
  config.system_malloc = config.system_malloc || runs_on_valgrind();
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
                                        .dump_memory = config.dump_memory,
                                        .huge_pages = config.huge_pages});
  if (!made_store) {
    return made_store.error();
  }
  store = std::move(*made_store);
  auto made_window = Window::create(*store, {.bytes = config.window_bytes,
                                             .max_mappings = config.max_mappings,
                                             .from_file = runs_on_valgrind()});
  if (!made_window) {
    return made_window.error();
  }
  window = std::move(*made_window);
  auto made_pages = PageAllocator::create(store->capacity());
  if (!made_pages) {
    return made_pages.error();
  }
  pages = std::move(*made_pages);
  if (auto opened = open_tables(); !opened) {
    return opened;
  }
  if (auto opened = open_small(); !opened) {
    return opened;
  }
  if (config.hardened) {
    if (auto opened = hardened.open(Bytes(config.quarantine_bytes)); !opened) {
      return opened;
    }
    close_gate(kHardened);
  }
  if (runs_on_valgrind()) {
    close_gate(kWatched);
  }
  if (auto grown = populate_initially(); !grown) {
    return grown;
  }
  open_gate(kNotReady);
  keeper.reset(new (std::nothrow) Keeper(*this));
  if (keeper == nullptr) {
    return Error{Errc::kNoMemory, 0, "pool"};
  }
  if (config.background) {
    (void)keeper->start();  // Without it callers do the work themselves.
  }
  return {};
}

Status Pool::Impl::open_tables() {
  if (auto opened = cache.open(); !opened) {
    return opened;
  }
  if (auto armed = fork_guard.arm(); !armed) {
    return armed;
  }
  fast = fork_guard.wiped_word();
  records = &pages->record(Pfn(0));
  direct_base = reinterpret_cast<std::uintptr_t>(store->address_of(Pfn(0)));
  direct_bytes = bytes_of(store->capacity());
  most_small_bytes = std::min(kKmallocMaxBytes, config.kvmalloc_max_bytes);
  most_class_bytes = std::min(bytes_of(Pages(kMaxClassPages)), config.kvmalloc_max_bytes);
  window_base = reinterpret_cast<std::uintptr_t>(window->base());
  window_bytes = config.window_bytes;
  void* mapped = nullptr;
  const int error = os().mmap(nullptr, area_table_bytes(), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the table of areas, bytes", area_table_bytes());
  }
  area_frames = static_cast<std::atomic<std::uint32_t>*>(mapped);
  return {};
}

Status Pool::Impl::populate_initially() {
  cache.set_budget(Pages(1));
  TurnLock lock(grow_lock);
  while (bytes_of(store->populated()) < config.initial_bytes) {
    if (!grow(GrowthPages::kHuge)) {
      return Error{Errc::kNoMemory, 0, "populating the pool's initial bytes", config.initial_bytes};
    }
  }
  keep_present(Pages(0));
  return {};
}

Pool::Impl::~Impl() {
  if (store != nullptr && !store->owned_by_this_process()) {
    (void)keeper.release();  // Its thread exists in the parent only, and cannot be waited for here.
    // Other threads may have been inside it, and held locks that nobody here will ever give back.
    (void)small.release();
  }
  keeper.reset();
  small.reset();  // Its slabs are frames of what dies below.
  if (area_frames != nullptr) {
    // Somebody else's memory may come to stand where the buffers stood.
    forget_range(store->address_of(Pfn(0)), direct_bytes);
    forget_range(window->base(), (highest_area.load(std::memory_order_relaxed) + 1)
                                     << kPageShift);     // Nobody maps any more.
    (void)os().munmap(area_frames, area_table_bytes());  // Cannot be helped if it fails.
  }
}

namespace {

// Release pairs with acquire: who sees it sees what it points to.
constinit std::atomic<Pool*> the_default_pool{nullptr};

// The process of which a thread makes it just now (0: none), and where its other threads wait for
// that. If a forked child finds its parent's here, that thread is not in it and never ends there.
constinit std::atomic<pid_t> the_maker{0};
constinit WaitWord the_maker_ended;

Result<Pool*> create_default_pool() {
  // It outlives any Os that a test has put in place, and so must its thread: none then.
  const Os& in_force = os();
  auto made = Pool::create({.background = typeid(in_force) == typeid(Os)});
  if (!made) {
    return made.error();
  }
  // Never destroyed: buffers may be freed by destructors of static objects, in any order.
  return made->release();
}

// One thread at a time makes it: two could be refused what there is for one.
Result<Pool*> make_default_pool() {
  const pid_t here = ::getpid();
  pid_t maker = 0;
  // Acquire, here and below, pairs with release: who comes next sees what was made.
  while (!the_maker.compare_exchange_strong(maker, here, std::memory_order_acquire)) {
    if (maker == here) {
      const std::uint32_t seen = the_maker_ended.value();
      if (the_maker.load(std::memory_order_acquire) == here) {
        (void)the_maker_ended.wait(seen, WaitWord::kEverybody, WaitWord::kForever);
      }
      maker = 0;
    }
  }
  Pool* const there = the_default_pool.load(std::memory_order_relaxed);  // Seen as said above.
  const Result<Pool*> pool = there != nullptr ? Result<Pool*>(there) : create_default_pool();
  if (pool) {
    the_default_pool.store(*pool, std::memory_order_release);
  }
  the_maker.store(0, std::memory_order_release);
  the_maker_ended.wake(WaitWord::kEverybody);
  return pool;
}

}  // namespace

Result<Pool*> try_default_pool() {
  Pool* const pool = the_default_pool.load(std::memory_order_acquire);
  return pool != nullptr ? Result<Pool*>(pool) : make_default_pool();
}

Pool& default_pool() {
  if (Pool* const pool = the_default_pool.load(std::memory_order_acquire)) {
    return *pool;
  }
  const auto made = make_default_pool();
  KEEL_CHECK(made.ok(), "creating the default pool failed");
  return **made;
}

namespace {

// False if the default pool cannot be made. Who must not fail waits until it can, but for a size
// that it would not have either.
bool make_default_pool_for(std::size_t size_bytes, AllocFlags flags, const char* owner) {
  if (!check_allocation_allowed("kvmalloc")) {
    return false;  // Nor would waiting help: what a pool is made of is refused as well.
  }
  const bool waits = has(flags, AllocFlags::kNoFail) && size_bytes != 0 &&
                     size_bytes <= PoolConfig().kvmalloc_max_bytes;
  for (Patience patience; !try_default_pool().ok();) {
    if (!waits) {
      return false;
    }
    patience.sleep();
    if (patience.is_message_due()) {
      std::array<char, 256> line;
      (void)std::snprintf(line.data(), line.size(),
                          "the default pool cannot be made, and is waited for: size %zu, owner "
                          "'%s'",
                          size_bytes, owner);
      send_message(line.data());
    }
  }
  return true;
}

}  // namespace

void* kvmalloc(std::size_t size_bytes, AllocFlags flags, const char* owner) {
  if (the_default_pool.load(std::memory_order_relaxed) == nullptr &&
      !make_default_pool_for(size_bytes, flags, owner)) {
    return nullptr;
  }
  return default_pool().kvmalloc(size_bytes, flags, owner);
}
void kvfree(void* address) {
  if (address != nullptr) {
    default_pool().kvfree(address);
  }
}

// Purge and trim ----------------------------------------------------------------------------------

void Pool::purge() { (void)impl_->window->purge(); }

const PoolConfig& Pool::config() const { return impl_->config; }

bool Pool::owned_by_this_process() const { return impl_->store->owned_by_this_process(); }

void Pool::upkeep() { (void)impl_->upkeep(); }

void Pool::audit() const {
  const Keeper::Paused quiet(*impl_->keeper);
  impl_->store->audit();
  impl_->window->audit();
  impl_->pages->audit();
  KEEL_CHECK(impl_->store->populated() == impl_->pages->counts().present,
             "populated pages, in the store and in the page allocator",
             impl_->store->populated().value(), impl_->pages->counts().present.value());
  impl_->audit_cache();
}

// What lies in the cache is idle by its record, fits its class, and is nowhere twice: as many idle
// frames in records as in the cache and the quarantine.
void Pool::Impl::audit_cache() {
  Pages found{};
  cache.for_each([&](unsigned size_class, Pfn buffer) {
    const FrameWord word = pages->record(buffer).word();
    KEEL_CHECK(word.use == FrameUse::kCached || word.use == FrameUse::kCachedChain,
               "a buffer in the cache is in use, frame", buffer.value());
    const std::size_t held = held_bytes(static_cast<std::uint32_t>(buffer.value()));
    const bool fits =
        size_class == kSizeClasses
            ? word.kind == kNoClass
            : word.kind == size_class && kept_class_of(held >> kPageShift) == size_class;
    KEEL_CHECK(fits, "a buffer in the cache of another class, frame", buffer.value(), size_class);
    found += pages_for(held);
  });
  const Pages idle = pages->idle();
  KEEL_CHECK(found + hardened.pages() == idle, "idle frames, in the cache and by their records",
             found.value(), idle.value());
}

}  // namespace keel
