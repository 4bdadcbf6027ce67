// Scopes that narrow or forbid allocation by the calling thread while they live.
//
// They stand in base because every layer's allocation of metadata asks them, not only kvmalloc.
// Source: memalloc_nofs_save (Linux); tcmalloc's allocation guard.
#pragma once

namespace keel {

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

  [[nodiscard]] static bool active();

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

  [[nodiscard]] static bool active();
};

// Reports kAllocationInNoAllocScope if a NoAllocScope is active. Returns false if the bug handler
// returns: the allocator then gives nullptr. `call` names the allocator's call.
bool check_allocation_allowed(const char* call);

}  // namespace keel
