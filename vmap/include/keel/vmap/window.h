// Window: one reserved range of addresses in which any list of frames becomes contiguous (vmap).
//
// I1 The reservation lives until the destructor. Taking aliases away maps PROT_NONE over them and
//    never unmaps: another thread's mmap could take a hole, and the next MAP_FIXED would overwrite
//    it.
// I2 Every page of the window is free or belongs to one area. Both are kept in flat tables over the
//    window (address_space.h), so unmap() and purge() allocate nothing and cannot fail for memory.
// I3 A lazily unmapped area keeps its addresses until a purge has removed its aliases. A purge that
//    the kernel refuses leaves it lazy.
// I4 Aliases are never forked and never dumped: a child must not write to its parent's frames, and
//    a core dump has them already through the direct map if it is to have them at all.
// I5 `mappings` is at least what the kernel counts for the window, and at most the budget.
// Locks: kPurge: one purge at a time, held over its system calls (in slices: for one of them), and
//    who waits for it has it before who gave it back (kPurgeTurn); kWindow, one for each shard,
//    guards its table and is held over none. map() waits for kPurge only when it must
//    purge itself. find() takes none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel/vmap/frames.h"

namespace keel {

class FrameStore;

struct WindowConfig {
  std::size_t bytes = std::size_t{64} << 30;  // from 1 MiB up to just under 1 TiB, whole pages
  std::uint64_t max_mappings = 0;             // kernel mappings; 0: half of vm.max_map_count
  Pages lazy_max{};     // past it map() purges; 0: 32 MiB for each doubling of CPUs, as the kernel
  unsigned shards = 0;  // 0: a power of two, at least one for each CPU, of at least 4 MiB each
  bool from_file = false;  // aliases map the store's file anew: for Valgrind, which cannot follow
                           // copies of mappings; so it is in any case if the store locks memory
};

struct MapOptions {
  const char* owner = "";    // tag that reports show; static storage
  std::uint64_t cookie = 0;  // the caller's, handed back by unmap() and find()
  bool guard = false;        // one inaccessible page behind
};

struct VmapArea {
  std::byte* start = nullptr;
  Pages pages{};  // without the guard page
  const char* owner = "";
  std::uint64_t cookie = 0;
};

enum class VmapState : std::uint8_t {
  kMapping,  // map() is making it
  kLive,
  kLazy,     // unmapped; a purge has not removed its aliases yet
  kPurging,  // a purge is at it
};
[[nodiscard]] const char* to_string(VmapState state);

// One line of a dump: an area of its own, or a slot of a block.
struct VmapRange {
  VmapArea area;  // cookie 0 unless live
  VmapState state = VmapState::kLive;
  bool guard = false;
  bool in_block = false;
  std::uint64_t runs = 0;  // kernel mappings that its frames cost
};

class VmapVisitor {
 public:
  virtual ~VmapVisitor() = default;
  virtual void visit(const VmapRange& range) = 0;

 protected:
  VmapVisitor() = default;
  VmapVisitor(const VmapVisitor&) = default;
  VmapVisitor& operator=(const VmapVisitor&) = default;
};

struct WindowStats {
  std::uint64_t maps = 0;
  std::uint64_t map_retries = 0;  // purges that map() had to make before it could go on
  std::uint64_t purges = 0;       // that removed something
  std::uint64_t purged_pages = 0;
  std::uint64_t purge_slices = 0;  // calls of purge_slice() that removed something
  std::uint64_t purge_calls = 0;   // system calls
  std::uint64_t purge_failures = 0;
  std::uint64_t mappings = 0;
  std::uint64_t max_mappings = 0;
  Pages live{};  // guard pages included, here and below
  Pages lazy{};
  Pages free{};
  Bytes tables{};  // that what is live or lazy needs at least
};

class Window : public MetadataObject {
 public:
  // Reserves the addresses. `store` must outlive the window.
  // Errors: kInvalidArgument, kNoMemory, kSystem.
  [[nodiscard]] static Result<std::unique_ptr<Window>> create(const FrameStore& store,
                                                              const WindowConfig& config);
  // Unmaps everything; nobody uses an address of the window any more.
  ~Window();
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  // Makes the frames contiguous, readable and writable, in list order, already in the page tables.
  // Purges and tries again by itself when there are no addresses, no budget or no kernel memory.
  // Units: frames of the store that are populated and stay so. Owner: the caller, until unmap();
  // the frames stay the caller's throughout. Threads: any; blocks.
  // Errors: kInvalidArgument (empty list, a frame beyond the store), kNoAddressSpace, kNoMappings,
  // kNoMemory, kForked, kSystem; nothing has changed then.
  // Source: vm_map_ram, _vm_unmap_aliases (Linux mm/vmalloc.c).
  [[nodiscard]] Result<void*> map(FrameSource& frames, const MapOptions& options = {});
  [[nodiscard]] Result<void*> map(std::span<const Pfn> frames, const MapOptions& options = {});

  // Ends the area that map() gave; its frames may be used for other things at once. Lazy: O(1), no
  // system call, the alias works until a purge. `out` gets what the area was.
  // Threads: any. Errors: false after a report under the name `call` (unknown address, interior
  // pointer, second unmap, direct-map address); nothing has changed then.
  bool unmap(const void* address, VmapArea* out = nullptr, const char* call = "unmap");

  // The live area that starts at `address`. Threads: any; takes no lock, so that it is exact for
  // the owner of the area, or for who knows that nobody maps or unmaps there.
  [[nodiscard]] std::optional<VmapArea> find(const void* address) const;

  // Reports why `address` is no start of a live area, as unmap() would. Threads: any.
  void report_wrong(const void* address, const char* call) const;

  [[nodiscard]] bool contains(const void* address) const;
  // First address of the window.
  [[nodiscard]] std::byte* base() const;

  // Removes every alias that was lazy when it began, neighbours together.
  // Threads: any; blocks, also for a purge that is under way.
  // Errors: kNoMemory, kForked, kSystem: some aliases are still lazy, and a later purge tries
  // again.
  Status purge();

  // Removes a part of the lazy aliases with one system call, bounded to about 1 ms of CPU time: by
  // pages, and by mappings, each of which may cost an interrupt of the other CPUs. For a thread in
  // the background. Threads: any; blocks, also for a purge that is under way.
  // Errors: false if nothing is lazy any more, or if the kernel refused; the rest is still lazy.
  bool purge_slice();

  // In such parts, and others may purge in between: as many pages as are lazy now, or until nothing
  // is. Threads: as above. Errors: ends when the kernel refuses; the rest is still lazy.
  void purge_in_slices();

  // Pages of areas unmapped and not purged yet. Threads: any; one load.
  [[nodiscard]] Pages lazy_pages() const;

  [[nodiscard]] WindowStats stats() const;

  // Shows every area and every slot of a block, by address. Threads: any; the visitor is called
  // without a lock, so what it sees of one area is true of one moment, the whole is not.
  // Source: /proc/vmallocinfo.
  void visit_ranges(VmapVisitor& visitor) const;

  // Walks the whole table and aborts if it does not add up. Threads: any.
  void audit() const;

 private:
  struct Impl;
  explicit Window(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keel
