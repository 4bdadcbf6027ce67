// What a Pool is made of, and the ways through it that its files share.
//
//   kvmalloc.cc  a request's way through cache and tiers      kvfree.cc  a buffer's way back
//   growth.cc    grow, reserve, trim                          reclaim.cc  when nothing is left
//   upkeep.cc    what the keeper's thread does ahead of all   tags.cc    limits per owner
//   hardened.cc  every buffer guarded, freed ones kept        stats.cc   counts, as text too
//   pool_dump.cc what is mapped, area by area                  small.cc    objects below a page
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "buffer_cache.h"
#include "counters.h"
#include "hardened.h"
#include "keel/alloc/page_allocator.h"
#include "keel/alloc/pool.h"
#include "keel/alloc/pool_dump.h"
#include "keel/base/fork_guard.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/scopes.h"
#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"
#include "keeper.h"
#include "kmalloc.h"
#include "owner_ids.h"
#include "shrinkers.h"
#include "tags.h"

namespace keel {

// One call of kvmalloc.
struct Request {
  std::size_t size_bytes;
  Pages pages;
  AllocFlags flags;
  const char* owner;
};

// Passes over everything (reclaim) and what came of them; see reclaim.cc.
struct Shortage {
  unsigned passes = 0;      // under way
  std::uint64_t frees = 0;  // while it was short
};

// What the rounds of upkeep() remember; only the one who makes rounds uses it.
struct UpkeepState {
  static constexpr unsigned kWindows = 4;
  std::array<Pages, kWindows> lowest_free{};  // in each of the last windows of time, and this one
  unsigned window = 0;
  std::uint64_t window_ends_ns = 0;
  bool slabs_stay = false;  // the last release of slabs got nothing back
};

struct Pool::Impl final : MetadataObject, Evictor, Upkeep {
  static constexpr std::uint32_t kNoFrame = CpuStacks::kNone;

  // Reasons why an allocation or free may not take the fast path; any bit closes it.
  enum Gate : std::uint32_t {
    kShort = 1U << 0,  // a pass over everything is under way, or found nothing: see Shortage
    kTagLimits = 1U << 1,
    kHardened = 1U << 2,
    kNotReady = 1U << 3,
    kWatched = 1U << 4,  // Valgrind must hear of every buffer
  };

  Impl() : cache(*this, counters) {}
  ~Impl();
  // pool.cc
  [[nodiscard]] Status open(const PoolConfig& completed);
  [[nodiscard]] Status open_tables();
  [[nodiscard]] Status populate_initially() KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] std::size_t area_table_bytes() const {
    return (config.window_bytes >> kPageShift) * sizeof(std::uint32_t);
  }
  void audit_cache();

  // kvmalloc.cc
  [[nodiscard]] void* hand_out(std::uint32_t frame, const Request& request);
  void clear(void* buffer, const Request& request) const;
  [[nodiscard]] void* allocate_slowly(const Request& request);
  [[nodiscard]] void* allocate_once(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] bool settle_charge(unsigned tag, std::uint64_t charge, void* buffer);
  [[nodiscard]] void* try_tiers(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* try_new(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* try_cache(const Request& request);
  [[nodiscard]] void* make_buffer(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] bool is_roomy(Pages wanted) const;
  void note_if_low();
  [[nodiscard]] void* try_contiguous(const Request& request);
  [[nodiscard]] void* grow_for(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* try_vmalloc(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* map_chain(Pfn chain, const Request& request);
  [[nodiscard]] void* allocate_nofail(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] bool is_within_limit(std::size_t size_bytes) const;
  [[nodiscard]] bool is_within_owners_limit(const Request& request);
  void note_failure(const Request& request);
  void send_report(const char* headline, const Request& request) const;

  // kvfree.cc
  [[nodiscard]] std::uint32_t frame_at(const void* address, FrameUse& expected) const;
  [[nodiscard]] std::byte* address_of(std::uint32_t frame) const;
  [[nodiscard]] std::size_t held_bytes(std::uint32_t frame) const;
  void free_slowly(void* address, std::uint32_t frame, FrameUse expected);
  void make_idle(std::uint32_t frame);
  void retire(std::uint32_t frame);
  void overflow(std::uint8_t size_class, std::uint32_t frame);
  void give_back(std::uint32_t frame);
  void defer(std::uint32_t frame);
  void quarantine(std::uint32_t frame);
  // Reports why `address` is no buffer that can be freed.
  void report_wrong(const void* address, const char* call) const;
  [[nodiscard]] std::uint32_t mapped_buffer_over(const void* address) const;
  void report_wrong_direct(const void* address, const char* call) const;
  void evict(std::span<const Pfn> buffers) override;
  void note_returned() override { note_freed(); }
  void evict_one(Pfn buffer);
  void end_alias(Pfn chain);
  void report_freed_twice(std::uint32_t frame) const;
  [[nodiscard]] Tier tier_of(Pfn buffer) const override;
  [[nodiscard]] Pages pages_of(Pfn buffer) const override;

  // small.cc
  static constexpr char kSlabOwner[] = "(small objects)";
  struct SlabSource final : ExtentSource {
    explicit SlabSource(Impl& pool) : impl(pool) {}
    [[nodiscard]] void* allocate(Pages wanted) override;
    void free(void* run, Pages) override;
    Impl& impl;
  };
  [[nodiscard]] Status open_small();
  [[nodiscard]] void* allocate_small(std::size_t size_bytes, AllocFlags flags, const char* owner);
  [[nodiscard]] bool free_small(void* address);
  [[nodiscard]] void* reallocate_small(Pool& pool, void* address, std::size_t held,
                                       const Request& request);
  void report_wrong_small(const void* address, const char* call) const;
  // Splits what is held in slabs, which is one entry of `all`, among the owners of objects.
  void add_small_holders(std::span<OwnerBytes> all, std::size_t& count) const;

  // pool_dump.cc
  [[nodiscard]] PoolArea show(const VmapRange& range) const;

  // growth.cc
  class Populating;
  // Populates one chunk. False at capacity or if the system refuses; nothing has changed then.
  [[nodiscard]] bool grow(GrowthPages kind) KEEL_REQUIRES(grow_lock);
  [[nodiscard]] bool make_free(Pages wanted) KEEL_EXCLUDES(grow_lock);
  // After the store has grown or shrunk.
  void set_cache_budget();
  // A hint; false while trim() has a chunk in its hands.
  [[nodiscard]] bool is_grown_up() const { return pages->present_hint() == store->capacity(); }
  [[nodiscard]] Pages spare_target() const;
  [[nodiscard]] Pages low_watermark() const;
  void keep_present(Pages spare) KEEL_REQUIRES(grow_lock);
  [[nodiscard]] Pages kept() const;
  Bytes trim(unsigned most_chunks) KEEL_EXCLUDES(grow_lock);

  // reclaim.cc
  bool reclaim(const Request& request, bool shares);
  [[nodiscard]] std::uint64_t begin_pass() KEEL_EXCLUDES(gate_lock);
  void end_pass(std::uint64_t frees_before, const Request& request, bool found)
      KEEL_EXCLUDES(gate_lock);
  void note_freed() KEEL_EXCLUDES(gate_lock);
  void set_shortage() KEEL_REQUIRES(gate_lock);
  void set_exhausted(std::uint64_t from_pages, bool shrinkers_too) KEEL_REQUIRES(gate_lock);
  [[nodiscard]] bool is_short() const {
    return is_short_of_memory.load(std::memory_order_relaxed);  // A hint.
  }
  [[nodiscard]] bool is_exhausted(const Request& request) const {
    const bool asks_shrinkers =
        !has(request.flags, AllocFlags::kNoFs) && !has(request.flags, AllocFlags::kNoWait);
    const auto& mark = asks_shrinkers ? exhausted_with_shrinkers : exhausted_pages;
    return request.pages.value() >= mark.load(std::memory_order_relaxed);  // A hint.
  }

  // upkeep.cc
  Rounds upkeep() override KEEL_EXCLUDES(upkeep_lock);
  void grow_ahead() KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] bool purge_ahead();
  void keep_some_free() KEEL_EXCLUDES(upkeep_lock, grow_lock);
  void ask_shrinkers() KEEL_EXCLUDES(upkeep_lock, grow_lock);
  void note_lowest_free() KEEL_REQUIRES(upkeep_lock);
  void release_slabs() KEEL_REQUIRES(upkeep_lock);
  [[nodiscard]] bool has_idle_slabs() const;
  [[nodiscard]] Rounds give_back_idle() KEEL_REQUIRES(upkeep_lock) KEEL_EXCLUDES(grow_lock);

  // False as well in a forked child, where the word reads 0.
  [[nodiscard]] bool is_fast() const {
    return fast->load(std::memory_order_relaxed) != 0;  // Whoever closes it can wait a little.
  }
  void set_gate(Gate reason, bool closed) KEEL_REQUIRES(gate_lock) {
    gate = closed ? gate | reason : gate & ~std::uint32_t{reason};
    fast->store(gate == 0 ? 1 : 0, std::memory_order_relaxed);  // As above.
  }
  void open_gate(Gate reason) KEEL_EXCLUDES(gate_lock) {
    MutexLock lock(gate_lock);
    set_gate(reason, false);
  }
  void close_gate(Gate reason) KEEL_EXCLUDES(gate_lock) {
    MutexLock lock(gate_lock);
    set_gate(reason, true);
  }

  PoolConfig config{};
  std::unique_ptr<FrameStore> store;  // outlives the window, which maps it
  std::unique_ptr<Window> window;
  std::unique_ptr<PageAllocator> pages;
  Mutex gate_lock{LockRank::kLeaf};
  std::uint32_t gate KEEL_GUARDED_BY(gate_lock) = kNotReady;
  Shortage shortage KEEL_GUARDED_BY(gate_lock);

  // Copies of what the fast path needs, together.
  std::atomic<std::uint32_t>* fast = nullptr;  // not 0: no bit of `gate` is set
  FrameRecord* records = nullptr;
  std::uintptr_t direct_base = 0;
  std::size_t direct_bytes = 0;
  std::size_t most_small_bytes = 0;  // of an object, within kvmalloc_max_bytes
  std::size_t most_class_bytes = 0;  // of a buffer that has a class, likewise
  std::uintptr_t window_base = 0;
  std::size_t window_bytes = 0;
  // By page of the window: first frame of the buffer that is mapped there, plus one; 0: none
  // begins there. Relaxed: who has a buffer's address was handed it.
  std::atomic<std::uint32_t>* area_frames = nullptr;
  std::atomic<std::uint64_t> highest_area{0};  // page of the window; relaxed, for the destructor

  ForkGuard fork_guard;
  // Written under gate_lock, read without: requests of so many pages are refused at once, and those
  // that may ask shrinkers; kShort.
  static constexpr std::uint64_t kNotExhausted = ~std::uint64_t{0};
  std::atomic<std::uint64_t> exhausted_pages{kNotExhausted};
  std::atomic<std::uint64_t> exhausted_with_shrinkers{kNotExhausted};
  std::atomic<bool> is_short_of_memory{false};

  // Frames of initial_bytes, or that reserve() found in use and was to have free: the keeper does
  // not give back below it.
  std::atomic<std::uint64_t> kept_present{0};
  std::atomic<unsigned> populating{0};  // threads that populate chunk after chunk: see Populating

  PoolCounters counters;
  Histogram slow_ns;  // of allocations that make system calls
  BufferCache cache;
  OwnerIds owners;
  SlabSource slab_source{*this};
  std::unique_ptr<Kmalloc> small;
  Shrinkers shrinkers;
  TagLimits tags;
  Hardened hardened;
  // When the last message about a failure was sent; 0: never. Relaxed: only limits their rate.
  std::atomic<std::uint64_t> last_message_ns{0};

  TurnMutex grow_lock{LockRank::kPoolTurn, LockRank::kPool};
  Mutex upkeep_lock{LockRank::kPoolUpkeep};  // over what rounds remember
  UpkeepState upkeep_state KEEL_GUARDED_BY(upkeep_lock);
  std::unique_ptr<Keeper> keeper;  // last: its thread uses all of the above
};

// While it lives a thread populates what it needs, chunk after chunk: to the keeper none of that is
// idle, however long it takes.
class Pool::Impl::Populating {
 public:
  explicit Populating(Impl& pool) : pool_(pool) {
    pool.populating.fetch_add(1, std::memory_order_relaxed);  // A hint: a few chunks may go.
  }
  ~Populating() {
    pool_.populating.fetch_sub(1, std::memory_order_relaxed);  // Same.
    pool_.keeper->note_activity();  // There may be more than anybody uses, as when it failed.
  }
  Populating(const Populating&) = delete;
  Populating& operator=(const Populating&) = delete;

 private:
  Impl& pool_;
};

// First frame of the buffer that would begin at `address`, and the use that its record must have;
// kNoFrame if none can begin there.
inline std::uint32_t Pool::Impl::frame_at(const void* address, FrameUse& expected) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t offset = at - direct_base;
  if ((at & (kPageBytes - 1)) != 0) {
    return kNoFrame;
  }
  if (offset < direct_bytes) [[likely]] {
    expected = FrameUse::kBuffer;
    return static_cast<std::uint32_t>(offset >> kPageShift);
  }
  expected = FrameUse::kChain;
  const std::uintptr_t in_window = at - window_base;
  if (in_window >= window_bytes) {
    return kNoFrame;
  }
  // Relaxed, as its declaration says. 0 wraps to kNoFrame.
  return area_frames[in_window >> kPageShift].load(std::memory_order_relaxed) - 1;
}

}  // namespace keel
