// Pool: a frame store, its window and its page allocator, and kvmalloc over them.
//
// kvmalloc(size) takes a contiguous run from the page allocator's free lists and fails fast there;
// then it gathers scattered frames and maps them in the window (vmalloc). Free finds the tier from
// the address alone. A process usually has one pool, default_pool().
//
// I1 Populated memory never passes the capacity. Every populated frame is free or some caller's.
// I2 A failed allocation changes nothing but that chunks which it had populated stay, as free
//    memory.
// I3 Allocate and free make no memory of their own: they link and record in arrays set aside
//    before.
// Locks: kPool, held while the store grows or shrinks, so that many callers who find the free lists
//    empty populate one chunk and not one each. The rest has the locks of the parts below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "keel/alloc/flags.h"
#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

struct PoolConfig {
  std::size_t capacity_bytes = 0;      // hard cap; 0: half of the machine's memory
  std::size_t chunk_bytes = 4U << 20;  // a power of two; the store grows by this, populated
                                       // before use; made smaller to fit a small capacity
  std::size_t window_bytes = std::size_t{64} << 30;  // address space for vmalloc and map()
  std::size_t kvmalloc_max_bytes = std::size_t{1} << 30;
  std::uint64_t max_mappings = 0;  // of the window; 0: half of vm.max_map_count
  std::size_t initial_bytes = 0;   // populated by create(), whole chunks
  bool lock_memory = false;        // mlock what is populated
  bool dump_memory = false;        // include the pool in core dumps
};

struct PoolStats {
  std::uint64_t contiguous_allocations = 0;
  std::uint64_t vmalloc_allocations = 0;
  std::uint64_t failures = 0;
  std::uint64_t nofail_warnings = 0;
  std::uint64_t frees = 0;
  std::uint64_t inline_growths = 0;  // callers that had to populate a chunk themselves
  std::uint64_t purges = 0;
  std::uint64_t purged_pages = 0;
  std::uint64_t purge_calls = 0;  // system calls that purges made
  std::uint64_t mappings = 0;     // kernel mappings in use by the window, an upper bound
  Bytes capacity{};
  Bytes populated{};  // memory taken from the system
  Bytes free{};       // of it, in the page allocator's free lists
  Bytes live{};       // of it, held by callers, in whole pages
  Bytes lazy{};       // address space of aliases that wait for a purge
};

class Pool : public MetadataObject {
 public:
  // Reserves address space and populates `initial_bytes`. The capacity is rounded down to chunks.
  // Errors: kInvalidArgument (also less than 64 KiB of capacity), kNoMemory, kNoAddressSpace,
  // kSystem.
  [[nodiscard]] static Result<std::unique_ptr<Pool>> create(const PoolConfig& config);
  // Every buffer is gone with it, freed or not.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Memory of at least `size_bytes`, page-aligned.
  // Units: bytes; held in whole pages. Owner: the caller, until kvfree(). Threads: any; may block
  // unless kNoWait. `owner` (static storage) is the tag that reports and dumps show.
  // Errors: nullptr for size 0, above the limit (kvmalloc_max_bytes, or what capacity or window
  // could never hold), in a forked child, or when there is none (never with kNoFail).
  // Source: kvmalloc_node, xlog_kvmalloc (Linux).
  [[nodiscard]] void* kvmalloc(std::size_t size_bytes, AllocFlags flags = AllocFlags::kKernel,
                               const char* owner = "");

  // Gives back what kvmalloc() gave; nullptr is allowed. Threads: any. Never fails, never
  // allocates.
  // Errors: a wrong address is a reported bug and changes nothing. No effect in a forked child.
  void kvfree(void* address);

  // False in a child forked later: it has none of the pool's memory, and may not touch the
  // parent's.
  [[nodiscard]] bool owned_by_this_process() const;

  // Usable bytes at `address`, 0 for nullptr. Errors: as kvfree.
  [[nodiscard]] std::size_t kvsize(const void* address) const;

  // True if `address` is a live buffer from the contiguous tier.
  [[nodiscard]] bool is_contiguous(const void* address) const;

  // Threads: any; the parts are read one after the other.
  [[nodiscard]] PoolStats stats() const;

  // Removes all lazy aliases now; what the kernel refuses to remove stays lazy. Threads: any;
  // blocks.
  void purge();

  // Gives unused chunks back to the system; returns the bytes given back. Purges once first, since
  // an alias must not outlive its chunk. Threads: any; blocks; an allocation that needs growth
  // waits.
  Bytes trim();

  // Walks every structure and aborts on a broken invariant. Threads: needs a quiet pool.
  void audit() const;

 private:
  struct Impl;
  explicit Pool(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The process's pool, made with a default PoolConfig at first use; aborts if that fails.
[[nodiscard]] Pool& default_pool();

// A line for a person: an allocation that failed, or that has waited for a second. `line` is valid
// during the call only and has no final newline. May be called from any thread that allocates,
// without keel's locks held; it may free, and must not allocate from the pool.
using MessageHook = void (*)(const char* line);

// Replaces the hook (default: to stderr); nullptr gives the default back. Returns the one before.
MessageHook set_message_hook(MessageHook hook);

// As Pool's, on default_pool().
[[nodiscard]] void* kvmalloc(std::size_t size_bytes, AllocFlags flags = AllocFlags::kKernel,
                             const char* owner = "");
void kvfree(void* address);

}  // namespace keel
