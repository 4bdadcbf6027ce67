// What a Pool is made of; shared by pool.cc (the public calls) and kvmalloc.cc (the tiers).
#pragma once

#include <atomic>
#include <memory>

#include "keel/alloc/page_allocator.h"
#include "keel/alloc/pool.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"

namespace keel {

// One call of kvmalloc.
struct Request {
  std::size_t size_bytes;
  Pages pages;
  AllocFlags flags;
  const char* owner;
};

// Counts; relaxed, since nobody concludes from one to other memory.
struct PoolCounters {
  std::atomic<std::uint64_t> contiguous{0};
  std::atomic<std::uint64_t> vmalloc{0};
  std::atomic<std::uint64_t> failures{0};
  std::atomic<std::uint64_t> nofail_warnings{0};
  std::atomic<std::uint64_t> frees{0};
  std::atomic<std::uint64_t> inline_growths{0};

  static void bump(std::atomic<std::uint64_t>& counter) {
    counter.fetch_add(1, std::memory_order_relaxed);
  }
};

struct Pool::Impl : MetadataObject {
  [[nodiscard]] Status open(const PoolConfig& config);

  // The tiers, in the order in which kvmalloc tries them.
  [[nodiscard]] void* allocate_once(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* try_contiguous(const Request& request);
  [[nodiscard]] void* grow_for_contiguous(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* try_vmalloc(const Request& request) KEEL_EXCLUDES(grow_lock);
  [[nodiscard]] void* allocate_nofail(const Request& request) KEEL_EXCLUDES(grow_lock);

  [[nodiscard]] std::optional<Pfn> gather(const Request& request) KEEL_EXCLUDES(grow_lock);
  // Populates one chunk. False at capacity or if the system refuses; nothing has changed then.
  [[nodiscard]] bool grow() KEEL_REQUIRES(grow_lock);

  void free_contiguous(const void* address);
  // Reports why `address`, in the direct map, is no buffer that can be freed.
  void report_wrong_direct(const void* address, const FrameInfo& found, const char* call) const;

  [[nodiscard]] bool is_within_limit(std::size_t size_bytes) const;
  void note_failure(const Request& request);
  void send_report(const char* headline, const Request& request) const;

  PoolConfig config{};
  std::unique_ptr<FrameStore> store;  // outlives the window, which maps it
  std::unique_ptr<Window> window;
  std::unique_ptr<PageAllocator> pages;

  Mutex grow_lock{LockRank::kPool};
  PoolCounters counters;
  // When the last message about a failure was sent; 0: never. Relaxed: only limits their rate.
  std::atomic<std::uint64_t> last_message_ns{0};
};

}  // namespace keel
