// Pool: a frame store, its window and its page allocator, and kvmalloc over them.
//
// kvmalloc(size) first looks for an idle buffer of the size class in the CPU's cache, whichever way
// it was once made; then takes a contiguous run from the page allocator's free lists and fails fast
// there; then gathers scattered frames and maps them in the window (vmalloc). Free finds the tier
// from the address alone. A process usually has one pool, default_pool().
//
// I1 Populated memory never passes the capacity. Every populated frame is free, in a cache, or some
//    caller's.
// I2 A failed allocation changes nothing but that chunks which it had populated stay, as free
//    memory, and that idle buffers may have gone.
// I3 Allocate and free make no memory of their own: they link and record in arrays set aside
//    before.
// Locks: none on the way through the CPU's cache. kPool is held while the store grows or shrinks by
//    a chunk, or grows by what a contiguous buffer needs, so that many callers who find the free
//    lists empty populate one and not one each; who waits for it has it before who goes on to the
//    next chunk. The rest has the locks of the parts below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "keel/alloc/flags.h"
#include "keel/alloc/pool_stats.h"
#include "keel/alloc/shrinker.h"
#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

struct PoolConfig {
  // Hard cap, which RLIMIT_FSIZE (ulimit -f) must allow; 0: half of the machine's memory, or that.
  std::size_t capacity_bytes = 0;
  std::size_t chunk_bytes = 1U << 20;  // a power of two; the store grows and shrinks by this,
                                       // populated before use; made smaller to fit the capacity
  std::size_t window_bytes = std::size_t{64} << 30;       // address space for vmalloc and map()
  std::size_t kvmalloc_max_bytes = std::size_t{1} << 30;  // at most 4 GiB - 1, whatever is set
  std::uint64_t max_mappings = 0;  // of the window; 0: half of vm.max_map_count
  std::size_t initial_bytes = 0;   // populated by create(), whole chunks
  bool lock_memory = false;        // mlock what is populated
  bool dump_memory = false;        // include the pool in core dumps
  bool huge_pages = true;          // growth ahead of callers asks for them; see vmap/README.md
  bool background = true;          // a thread that grows, purges and gives back ahead of callers
  bool system_malloc = false;      // small objects from the system's malloc, for sanitizers
  bool hardened = false;           // guard every buffer, keep freed ones out of use; slow
  std::size_t quarantine_bytes = 64U << 20;  // of a hardened pool: freed buffers kept out of use
};

// What a pool was made with and what the machine gave it.
struct PoolFacts {
  PoolConfig config{};                 // with the defaults filled in
  unsigned cpus = 0;                   // that have a cache
  bool restartable_sequences = false;  // the caches go without locks (rseq)
  bool watched = false;                // Valgrind is told of every buffer
  bool huge_advice_taken = false;      // asked for (config.huge_pages), and the kernel took it
  Bytes huge{};                        // and so much is mapped by them now; 0 if that is unknown
};

class PoolAreaVisitor;

class Pool : public MetadataObject {
 public:
  // Reserves address space and populates `initial_bytes`. The capacity is rounded down to chunks.
  // Errors: kInvalidArgument (also a capacity below 64 KiB, or of 8 TiB), kNoMemory (address space
  // too), kNoSpace (RLIMIT_FSIZE allows less), kPermission, kSystem.
  [[nodiscard]] static Result<std::unique_ptr<Pool>> create(const PoolConfig& config);
  // Every buffer is gone with it, freed or not.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Memory of at least `size_bytes`: page-aligned, in whole pages, from one page on; below that
  // aligned to 16 bytes, of a size class.
  // Units: bytes. Owner: the caller, until kvfree(). Threads: any; may block
  // unless kNoWait. `owner` (static storage) is the tag that reports and dumps show.
  // Errors: nullptr for size 0, above the limit (kvmalloc_max_bytes, or what capacity, window or
  // the owner's own limit could never hold), in a forked child, or when there is none (never with
  // kNoFail).
  // Source: kvmalloc_node, xlog_kvmalloc (Linux).
  [[nodiscard]] void* kvmalloc(std::size_t size_bytes, AllocFlags flags = AllocFlags::kKernel,
                               const char* owner = "");

  // Gives back what kvmalloc() gave; nullptr is allowed. Threads: any. Never fails, never
  // allocates.
  // Errors: a wrong address is a reported bug and changes nothing; two frees of one buffer at the
  // same time may not be seen (alloc/README.md, wrong frees). No effect in a forked child.
  void kvfree(void* address);

  // False in a child forked later: it has none of the pool's memory, and may not touch the
  // parent's.
  [[nodiscard]] bool owned_by_this_process() const;

  // As kvfree(), and checks that the buffer was asked for with exactly `size_bytes`.
  // Errors: kWrongSize is reported and nothing changes.
  void kvfree_sized(void* address, std::size_t size_bytes);

  // A buffer of `size_bytes` with the old one's contents as far as they fit: the old one if it fits
  // well, else a new one, and the old one is freed. nullptr for `address` allocates. What it grows
  // by is zeroes if all calls for it had kZero, from the first on: of a small object nobody knows
  // how much it was asked for (__GFP_ZERO has the same contract).
  // Errors: as kvmalloc, and the old buffer is as it was, but that one of a page and up (not of a
  // hardened pool) becomes smaller where it stands if there is no other; a wrong address is a
  // reported bug. With kNoFail it waits for the new one beside the old: what the owner's limit has
  // no room for together is waited for for ever.
  // Source: kvrealloc (Linux).
  [[nodiscard]] void* kvrealloc(void* address, std::size_t size_bytes,
                                AllocFlags flags = AllocFlags::kKernel, const char* owner = "");

  // Usable bytes at `address`, 0 for nullptr. Errors: as kvfree.
  [[nodiscard]] std::size_t kvsize(const void* address) const;

  // True if `address` is a live buffer from the contiguous tier; not in a forked child.
  [[nodiscard]] bool is_contiguous(const void* address) const;

  // Populates until `bytes` are free, so that allocations find them. The pool's thread does not
  // give back these and as much as is in use now; trim() does. Threads: any; blocks.
  // Errors: kNoMemory, kForked.
  [[nodiscard]] Status reserve(Bytes bytes);

  // Bounds what buffers of one owner (compared as text) may hold together; counts those allocated
  // from now on, as whole buffers. Allocations beyond it fail, without reclaim; with kNoFail they
  // wait until the owner has freed enough, but for what the limit could never hold. Threads: any.
  // Makes all allocations and frees of the pool slower.
  // Errors: kNoMemory beyond 64 owners, kForked.
  [[nodiscard]] Status set_limit(const char* owner, Bytes limit);

  // What owners hold, most first; gives how many entries it filled. Walks all frames' records.
  // Threads: any; sleeps some 70 us for each GiB of capacity, so that others have the frames
  // meanwhile. Nobody in a forked child.
  [[nodiscard]] std::size_t holders(std::span<OwnerBytes> largest) const;

  // `shrinker` must live until it is removed; remove_shrinker() waits for a call under way,
  // so a shrinker may not remove itself, or another of the pool, from inside its scan.
  // Threads: any. Errors: kInvalidArgument if it is registered, or 32 are; kForked.
  [[nodiscard]] Status add_shrinker(Shrinker& shrinker);
  void remove_shrinker(Shrinker& shrinker);

  // Threads: any; the parts are read one after the other. All 0 in a forked child.
  [[nodiscard]] PoolStats stats() const;

  // What the pool was made with, every default filled in. Threads: any.
  [[nodiscard]] const PoolConfig& config() const;
  // Reads /proc/self/smaps, which takes milliseconds: for reports. Threads: any.
  [[nodiscard]] PoolFacts facts() const;

  // Shows every area of the window by address, with its present owner (pool_dump.h). Contiguous
  // buffers have none. Threads: any; the visitor is called without a lock, so what it sees of one
  // area is true of one moment, the whole is not. Allocates nothing.
  // Source: /proc/vmallocinfo.
  void dump(PoolAreaVisitor& visitor) const;

  // Removes all lazy aliases now; what the kernel refuses to remove stays lazy. Threads: any;
  // blocks.
  void purge();

  // Gives all idle buffers up and all free chunks back to the system; returns the bytes given back.
  // Threads: any; blocks; an allocation that needs growth waits for a chunk of it.
  Bytes trim();

  // Walks every structure and aborts on a broken invariant. Threads: needs callers to be
  // quiet; holds the pool's own thread off.
  void audit() const;

  // One round of what the pool's thread does (PoolConfig::background). For pools without one.
  // Threads: any; blocks.
  void upkeep();

 private:
  struct Impl;
  explicit Pool(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The process's pool, made with a default PoolConfig at first use, and never destroyed.
// Errors: Pool::create()'s; the next call tries again. Threads: any.
[[nodiscard]] Result<Pool*> try_default_pool();
// As above; aborts if it cannot be made.
[[nodiscard]] Pool& default_pool();

// A line for a person: an allocation that failed, or that has waited for a second. `line` is valid
// during the call only and has no final newline. May be called from any thread that allocates,
// without keel's locks held; it may free, and must not allocate from the pool.
using MessageHook = void (*)(const char* line);

// Replaces the hook (default: to stderr); nullptr gives the default back. Returns the one before.
MessageHook set_message_hook(MessageHook hook);
// Calls the hook. Threads: any, without keel's locks held. Allocates nothing.
void send_message(const char* line);

// As Pool's, on default_pool(); where that cannot be made there is no memory, and kNoFail waits.
[[nodiscard]] void* kvmalloc(std::size_t size_bytes, AllocFlags flags = AllocFlags::kKernel,
                             const char* owner = "");
void kvfree(void* address);

}  // namespace keel
