// SlabArenas: objects below a page from jemalloc, whose slabs are runs of an ExtentSource.
//
// I1 One arena for each length that slabs have, so that all extents of an arena are alike. A cached
//    slab then fits any request of its arena: jemalloc never needs to split one or to join two,
//    which these hooks cannot, and the source gets back exactly the runs that it gave.
// I2 The arenas' own metadata does not come through the hooks (metadata_use_hooks is off): it is
//    jemalloc's, mapped by jemalloc, and grows when objects do.
// I3 jemalloc asks for 2 MiB first when an arena grows (opt.retain), and is refused; then it asks
//    for the one slab that it needs. If that is refused too, the allocation is: no other arena and
//    not the system is tried.
// I4 Threads' own caches (automatic tcaches) never see these objects: each CPU has an explicit
//    tcache, which stays when threads die.
// Locks: none that a thread waits for, but for jemalloc's. A CPU's tcache is claimed with one flag;
//    who finds it claimed (its holder was preempted, or runs a hook) goes past it. The
//    hooks run under jemalloc's locks.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "extent_source.h"
#include "keel/base/percpu.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel_jemalloc.h"
#include "slab_table.h"

namespace keel {

inline constexpr std::size_t kKmallocMaxBytes = kPageBytes - 1;

class SlabArenas {
 public:
  SlabArenas() = default;
  // Every object is gone with it; its slabs go back to the source.
  ~SlabArenas();
  SlabArenas(const SlabArenas&) = delete;
  SlabArenas& operator=(const SlabArenas&) = delete;

  // `source` and `table` outlive it. Errors: kNoMemory.
  [[nodiscard]] Status open(ExtentSource& source, SlabTable& table);

  // Bytes of the objects that serve `size`, 1 to kKmallocMaxBytes.
  [[nodiscard]] std::size_t object_bytes(std::size_t size) const { return class_for(size).bytes; }

  // An object of object_bytes(size) bytes; nullptr if the source has no slab for it.
  [[nodiscard]] void* allocate(std::size_t size);
  // `bytes` are the object's.
  void free(void* object, std::size_t bytes);

  // Gives cached objects and the slabs that become empty back; returns the bytes that the source
  // got, of all threads. A tcache in use just now is left out.
  Bytes release();

  struct Counts {
    std::uint64_t allocations = 0;
    std::uint64_t frees = 0;
    Bytes allocated{};
    Bytes freed{};
    std::uint64_t bypasses = 0;  // calls that found their CPU's tcache claimed
  };
  // Threads: any; the CPUs are read one after the other.
  [[nodiscard]] Counts counts() const;
  // Frames that the source gave, and has not got back.
  [[nodiscard]] Pages held() const;
  // The most that it was at any time.
  [[nodiscard]] Pages most_held() const {
    return Pages(most_pages_.load(std::memory_order_relaxed));
  }
  // Slabs that the source refused.
  [[nodiscard]] std::uint64_t refusals() const { return refusals_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kMaxArenas = 16;
  static constexpr std::size_t kMaxClasses = 64;
  static constexpr unsigned kNone = ~0U;

  struct Class {
    std::uint16_t bytes = 0;
    int arena_flag = 0;  // for mallocx
  };
  struct Arena {
    std::size_t slab_bytes = 0;
    unsigned index = kNone;
  };
  // First member of a struct that jemalloc hands back to the hooks.
  struct Hooks {
    keel_je_extent_hooks table;
    SlabArenas* self;
  };
  struct Counters {
    std::atomic<std::uint64_t> allocations{0};
    std::atomic<std::uint64_t> frees{0};
    std::atomic<std::uint64_t> allocated_bytes{0};
    std::atomic<std::uint64_t> freed_bytes{0};
  };
  struct Cpu {
    std::atomic<bool> claimed{false};
    // Below: of who has claimed it; the counters may be read by others.
    unsigned tcache = kNone;
    bool tcache_refused = false;
    Counters counters;
  };
  class Claim;

  static void* hook_alloc(keel_je_extent_hooks* hooks, void* new_address, std::size_t size,
                          std::size_t alignment, bool* zero, bool* commit, unsigned arena);
  static bool hook_dalloc(keel_je_extent_hooks* hooks, void* address, std::size_t size,
                          bool committed, unsigned arena);
  static void hook_destroy(keel_je_extent_hooks* hooks, void* address, std::size_t size,
                           bool committed, unsigned arena);

  [[nodiscard]] const Class& class_for(std::size_t size) const {
    return classes_[class_of_[(size + SlabTable::kSlotBytes - 1) / SlabTable::kSlotBytes]];
  }
  [[nodiscard]] Status open_classes();
  [[nodiscard]] Result<unsigned> arena_for(std::size_t slab_bytes);
  [[nodiscard]] Result<unsigned> create_arena();
  [[nodiscard]] static int tcache_flag(Cpu& cpu);
  [[nodiscard]] void* take_slab(std::size_t bytes, std::size_t alignment);
  void give_slab(void* slab, std::size_t bytes);

  ExtentSource* source_ = nullptr;
  SlabTable* table_ = nullptr;
  Hooks hooks_{};
  std::array<Class, kMaxClasses> classes_{};
  std::array<std::uint8_t, kPageBytes / SlabTable::kSlotBytes + 1> class_of_{};
  std::array<Arena, kMaxArenas> arenas_{};

  std::optional<PerCpu<Cpu>> cpus_;  // made by open()
  Counters shared_;                  // of calls that went past the tcaches
  // Relaxed, as all counts here: nobody concludes from one to other memory.
  std::atomic<std::uint64_t> bypasses_{0};
  std::atomic<std::uint64_t> taken_pages_{0};
  std::atomic<std::uint64_t> given_pages_{0};
  std::atomic<std::uint64_t> most_pages_{0};
  std::atomic<std::uint64_t> refusals_{0};
};

}  // namespace keel
