// kvmalloc: which tier serves a request, and what happens when none can.
//
// The order is that of xlog_kvmalloc: contiguous from the free lists and fail fast, then vmalloc,
// then (for kNoFail) again and again. What a kernel's page allocator does between (compaction,
// direct reclaim) never happens here. Below capacity the store grows before the scattered tier is
// tried, since an empty store would otherwise send every request there.
#include <algorithm>
#include <cstring>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/base/scopes.h"
#include "message.h"
#include "pool_impl.h"

namespace keel {
namespace {

constexpr std::uint64_t kMessageIntervalNs = 1'000'000'000;
constexpr std::uint64_t kFirstSleepNs = 1'000'000;
constexpr std::uint64_t kLongestSleepNs = 50'000'000;

// What the thread's scopes and kNoFail make of the caller's flags.
AllocFlags effective(AllocFlags flags) {
  if (NoReclaimScope::active()) {
    flags = flags | AllocFlags::kNoFs;
  }
  if (has(flags, AllocFlags::kNoFail)) {
    flags = without(flags, AllocFlags::kNoWait);
  }
  return flags;
}

}  // namespace

void* Pool::kvmalloc(std::size_t size_bytes, AllocFlags flags, const char* owner) {
  if (!check_allocation_allowed("kvmalloc")) {
    return nullptr;
  }
  if (!owned_by_this_process()) {
    return nullptr;  // kNoFail too: waiting would not help
  }
  const Request request{size_bytes, pages_for(size_bytes), effective(flags), owner};
  void* buffer = nullptr;
  if (impl_->is_within_limit(size_bytes)) {
    buffer = impl_->allocate_once(request);
    if (buffer == nullptr && has(request.flags, AllocFlags::kNoFail)) {
      buffer = impl_->allocate_nofail(request);
    }
  }
  if (buffer == nullptr) {
    impl_->note_failure(request);
  } else if (has(flags, AllocFlags::kZero)) {
    std::memset(buffer, 0, bytes_of(request.pages));
  }
  return buffer;
}

// A size that can never be had is refused at once, kNoFail or not: looping would help nobody.
bool Pool::Impl::is_within_limit(std::size_t size_bytes) const {
  const std::size_t mappable = config.window_bytes - kPageBytes;  // the guard page
  const std::size_t addressable = std::max(mappable, bytes_of(kMaxContiguous));
  return size_bytes != 0 && size_bytes <= config.kvmalloc_max_bytes &&
         size_bytes <= config.capacity_bytes && size_bytes <= addressable;
}

void* Pool::Impl::allocate_once(const Request& request) {
  if (void* buffer = try_contiguous(request)) {
    return buffer;
  }
  if (has(request.flags, AllocFlags::kNoWait)) {
    return nullptr;
  }
  if (void* buffer = grow_for_contiguous(request)) {
    return buffer;
  }
  if (void* buffer = try_vmalloc(request)) {
    return buffer;
  }
  (void)window->purge();  // What it could not remove stays lazy.
  if (void* buffer = try_contiguous(request)) {
    return buffer;
  }
  return try_vmalloc(request);
}

// Tier 1 ------------------------------------------------------------------------------------------

void* Pool::Impl::try_contiguous(const Request& request) {
  const std::optional<Pfn> frame = pages->allocate(request.pages, request.owner);
  if (!frame) {
    return nullptr;
  }
  PoolCounters::bump(counters.contiguous);
  return store->address_of(*frame);
}

void* Pool::Impl::grow_for_contiguous(const Request& request) {
  if (request.pages > kMaxContiguous) {
    return nullptr;
  }
  // With small chunks a request may need several, which become one block as they are neighbours.
  Pages grown{};
  MutexLock lock(grow_lock);
  for (;;) {
    // First without growing: who had the lock before may have grown for this request too.
    if (void* buffer = try_contiguous(request)) {
      return buffer;
    }
    if (grown >= request.pages || !grow()) {
      return nullptr;
    }
    PoolCounters::bump(counters.inline_growths);
    grown += store->chunk();
  }
}

bool Pool::Impl::grow() {
  const Result<FrameRun> next = store->next_chunk();
  // Records first: once the store has grown, nothing may fail.
  if (!next || !pages->prepare(*next)) {
    return false;
  }
  const Result<FrameRun> chunk = store->grow();
  if (!chunk) {
    return false;
  }
  pages->add(*chunk);
  return true;
}

// Tier 2 ------------------------------------------------------------------------------------------

void* Pool::Impl::try_vmalloc(const Request& request) {
  const std::optional<Pfn> chain = gather(request);
  if (!chain) {
    return nullptr;
  }
  ChainSource frames(*pages, *chain);
  const Result<void*> mapped =
      window->map(frames, {.owner = request.owner, .cookie = chain->value(), .guard = true});
  if (!mapped) {
    pages->free_chain(*chain);
    return nullptr;
  }
  PoolCounters::bump(counters.vmalloc);
  return *mapped;
}

std::optional<Pfn> Pool::Impl::gather(const Request& request) {
  if (const auto chain = pages->gather(request.pages, request.owner)) {
    return chain;
  }
  MutexLock lock(grow_lock);
  for (;;) {
    // Again under the lock, as above; and others may take what was grown, so until growing fails.
    if (const auto chain = pages->gather(request.pages, request.owner)) {
      return chain;
    }
    if (!grow()) {
      return std::nullopt;
    }
    PoolCounters::bump(counters.inline_growths);
  }
}

// When there is nothing ---------------------------------------------------------------------------

void* Pool::Impl::allocate_nofail(const Request& request) {
  std::uint64_t next_message_ns = os().monotonic_ns() + kMessageIntervalNs;
  for (std::uint64_t sleep_ns = kFirstSleepNs;;
       sleep_ns = std::min(sleep_ns * 2, kLongestSleepNs)) {
    os().sleep_ns(sleep_ns);
    if (void* buffer = allocate_once(request)) {
      return buffer;
    }
    const std::uint64_t now_ns = os().monotonic_ns();
    if (now_ns >= next_message_ns) {
      next_message_ns = now_ns + kMessageIntervalNs;
      PoolCounters::bump(counters.nofail_warnings);
      send_report("possible memory allocation deadlock", request);
    }
  }
}

void Pool::Impl::note_failure(const Request& request) {
  PoolCounters::bump(counters.failures);
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
  send_memory_report({.headline = headline,
                      .size_bytes = request.size_bytes,
                      .flags = static_cast<std::uint32_t>(request.flags),
                      .owner = request.owner,
                      .capacity = Bytes(config.capacity_bytes),
                      .populated = Bytes(bytes_of(pages->counts().present))},
                     *pages);
}

}  // namespace keel
