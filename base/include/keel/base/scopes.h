// Scopes that narrow or forbid allocation by the calling thread while they live.
//
// They stand in base because every layer's allocation of metadata asks them, not only kvmalloc.
// Source: memalloc_nofs_save (Linux); tcmalloc's allocation guard.
#pragma once

namespace keel {

namespace detail {
// Depths of this thread's scopes; here so that asking for them is one load.
extern constinit thread_local unsigned t_no_reclaim_scopes;
extern constinit thread_local unsigned t_no_alloc_scopes;
}  // namespace detail

// Every allocation of this thread is as if made with AllocFlags::kNoFs: it never runs reclaim,
// which could wait for what this thread holds. Nests. Threads: bound to the thread that made it.
class NoReclaimScope {
 public:
  NoReclaimScope();
  ~NoReclaimScope();
  // The scope moves with the object that owns it (a transaction), on the same thread.
  NoReclaimScope(NoReclaimScope&& other) noexcept;
  NoReclaimScope(const NoReclaimScope&) = delete;
  NoReclaimScope& operator=(const NoReclaimScope&) = delete;

  [[nodiscard]] static bool active() { return detail::t_no_reclaim_scopes != 0; }

 private:
  bool owned_ = true;
};

// Every allocation through keel by this thread is a reported bug. The journal holds it while it
// holds the context lock. Nests. Threads: bound to the thread that made it.
class NoAllocScope {
 public:
  NoAllocScope();
  ~NoAllocScope();
  NoAllocScope(const NoAllocScope&) = delete;
  NoAllocScope& operator=(const NoAllocScope&) = delete;

  [[nodiscard]] static bool active() { return detail::t_no_alloc_scopes != 0; }
};

// Reports kAllocationInNoAllocScope if a NoAllocScope is active. Returns false if the bug handler
// returns: the allocator then gives nullptr, whatever its flags. `call` names the allocator's call.
[[nodiscard]] bool check_allocation_allowed(const char* call);

}  // namespace keel
