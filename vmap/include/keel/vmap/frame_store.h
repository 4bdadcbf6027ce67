// FrameStore: the pool's memory, one memfd mapped once (the direct map), grown in chunks.
//
// I1 A frame is used only while its chunk is populated: the kernel has its page, in the direct
//    map's page table, so that nobody takes a page fault on pool memory.
// I2 The direct map is never forked (MADV_DONTFORK): it is shared memory, and a child that wrote to
//    it would write to its parent's buffers.
// I3 A chunk is populated or not, never in part; a growth that fails changes nothing.
// I4 Where there is a hole as large as a huge page, growth may ask for one: a tenth of the work for
//    the kernel, and memory that a device reads in a few long pieces. So at most a huge page less a
//    chunk is there that no chunk counts; the next growth takes it, a trim beside it gives it back.
//    Without huge pages 4 KiB ones serve.
// Source of I4: MADV_COLLAPSE (Linux 6.1), whatever shmem_enabled says but `deny`. (At `advise` or
//    `always` populating alone may bring a huge page; that one beside_ does not know of.)
// Locks: kFrameStore, over the chunk map; growing and trimming make their system calls under it,
//    one at a time, and nothing on an allocation path that has free frames ever takes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "keel/base/fork_guard.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel/vmap/frames.h"

namespace keel {

struct FrameStoreConfig {
  std::size_t capacity_bytes = 0;      // a multiple of chunk_bytes, below 8 TiB
  std::size_t chunk_bytes = 4U << 20;  // a power of two, at least a page
  bool lock_memory = false;            // mlock each chunk when it is populated
  bool dump_memory = false;            // the direct map goes into core dumps
  bool huge_pages = true;              // align the direct map to them and ask for them (I4)
};

enum class GrowthPages : std::uint8_t {
  kHuge,   // if the kernel has some, which can take it milliseconds to find
  kSmall,  // soonest done
};

class FrameStore : public MetadataObject {
 public:
  // Reserves address space and a memory object; populates nothing.
  // Errors: kInvalidArgument, kNoMemory, kNoSpace (RLIMIT_FSIZE), kPermission, kSystem.
  [[nodiscard]] static Result<std::unique_ptr<FrameStore>> create(const FrameStoreConfig& config);
  // The caller has no mapping of the store left that it will use.
  ~FrameStore();
  FrameStore(const FrameStore&) = delete;
  FrameStore& operator=(const FrameStore&) = delete;

  // False in a child forked later. There the direct map and all aliases are holes (MADV_DONTFORK)
  // in which the child's own mappings may stand, and the memory object is still the parent's: no
  // call may map, unmap or populate anything, or it would hit one or the other.
  [[nodiscard]] bool owned_by_this_process() const { return fork_guard_.same_process(); }

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] bool locks_memory() const { return config_.lock_memory; }
  [[nodiscard]] bool dumps_memory() const { return config_.dump_memory; }
  [[nodiscard]] Pages capacity() const { return capacity_; }
  [[nodiscard]] Pages chunk() const { return chunk_; }
  [[nodiscard]] Pages populated() const KEEL_EXCLUDES(lock_);

  // Addresses of the direct map. pfn_of() rounds down to the page and needs contains().
  [[nodiscard]] std::byte* address_of(Pfn frame) const {
    return base_ + (frame.value() << kPageShift);
  }
  [[nodiscard]] bool contains(const void* address) const;
  [[nodiscard]] Pfn pfn_of(const void* address) const;

  // The chunk that grow() would populate now. Errors: kNoMemory at capacity.
  [[nodiscard]] Result<FrameRun> next_chunk() const KEEL_EXCLUDES(lock_);

  // Populates the lowest chunk that is not (but first one that the last huge page brought), and
  // gives its frames; their contents are zero.
  // Threads: any; blocks for the time the kernel needs to clear a chunk.
  // Errors: kNoMemory (also at capacity), kPermission (mlock), kForked, kSystem; nothing has
  // changed then.
  [[nodiscard]] Result<FrameRun> grow(GrowthPages pages = GrowthPages::kHuge) KEEL_EXCLUDES(lock_);

  // Gives a populated chunk's memory back to the system; grow() may populate it again later. With
  // lock_memory its address range goes on counting against RLIMIT_MEMLOCK.
  // The caller says that no frame of it is in use and that every alias of it was purged: a stale
  // alias would bring pages back behind the store's accounts.
  // Errors: kInvalidArgument, kForked, kSystem; nothing has changed then.
  [[nodiscard]] Status trim(FrameRun chunk) KEEL_EXCLUDES(lock_);

  // True if huge pages were asked for and the kernel took the advice; it may not have given any.
  [[nodiscard]] bool huge_advice_taken() const { return huge_advice_taken_; }
  // Memory of the direct map that huge pages map. Reads /proc/self/smaps: for reports only.
  [[nodiscard]] Result<Bytes> huge_bytes() const;

  // Walks the chunk map and aborts if it does not add up.
  void audit() const KEEL_EXCLUDES(lock_);

 private:
  explicit FrameStore(const FrameStoreConfig& config);
  [[nodiscard]] Status open();
  [[nodiscard]] Status map_directly();
  [[nodiscard]] Status reserve_directly();
  [[nodiscard]] Status populate(FrameRun chunk, GrowthPages pages) KEEL_REQUIRES(lock_);
  void ask_for_huge_pages(FrameRun chunk) KEEL_REQUIRES(lock_);
  [[nodiscard]] int collapse(Pfn first) const;
  // The chunk is a hole now: gives it back, with what a huge page brought beside it.
  [[nodiscard]] int punch(FrameRun chunk) KEEL_REQUIRES(lock_);
  [[nodiscard]] int punch_run(FrameRun run) const;
  [[nodiscard]] bool is_hole(Pfn frame) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Result<FrameRun> find_hole() const KEEL_REQUIRES(lock_);
  [[nodiscard]] FrameRun chunk_at(std::uint64_t index) const;

  const FrameStoreConfig config_;
  const Pages capacity_;
  const Pages chunk_;
  const std::uint64_t chunks_;
  ForkGuard fork_guard_;
  int fd_ = -1;
  void* reserved_ = nullptr;  // address space for the direct map, with room to align it
  std::size_t reserved_bytes_ = 0;
  std::byte* base_ = nullptr;
  bool huge_advice_taken_ = false;

  mutable Mutex lock_{LockRank::kFrameStore};
  bool* is_populated_ KEEL_PT_GUARDED_BY(lock_) = nullptr;  // one per chunk
  std::uint64_t lowest_hole_ KEEL_GUARDED_BY(lock_) = 0;    // chunks_: at capacity
  Pages populated_ KEEL_GUARDED_BY(lock_){};
  bool huge_given_ KEEL_GUARDED_BY(lock_) = false;  // at least once
  FrameRun beside_ KEEL_GUARDED_BY(lock_){};  // the last huge page; its holes are filled first
  // Growths before a huge page is asked for again: the kernel had none. UINT64_MAX: for ever.
  std::uint64_t huge_pause_ KEEL_GUARDED_BY(lock_) = 0;
};

}  // namespace keel
