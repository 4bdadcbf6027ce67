// Kmalloc: objects below a page (1 to 4,095 bytes) from slabs of an ExtentSource.
//
// jemalloc arenas serve the objects (slab_arenas.h); a table over the frames says at any time which
// object is live and whose (slab_table.h), so that a wrong free is told apart in every build,
// before jemalloc sees it. Or the system's malloc serves them, chosen at run time, for tools that
// know it (system_objects.h).
//
// I1 Fails fast: nullptr when the source has no slab. No other memory is ever used for objects.
// I2 Sizes of a power of two are aligned to themselves, all others to 16.
// I3 A wrong free changes nothing.
// Locks: none of its own on the slab backend. The source is called under jemalloc's locks, so its
//    locks are inner to nothing of the caller's but what the caller holds when it calls here.
// A forked child may not use it where the range is not inherited, nor destroy it if other threads
// may have been inside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "extent_source.h"
#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "slab_arenas.h"
#include "slab_table.h"
#include "system_objects.h"

namespace keel {

enum class KmallocBackend : std::uint8_t {
  kSlabs,
  // The system's malloc: AddressSanitizer and Valgrind then report a use after free with both
  // stacks. The source is not used, so objects do not count against its limit; objects are as
  // large as asked for; a double free is known for the last 4,096 frees, then it is kUnknown.
  kSystem,
};

struct KmallocConfig {
  const void* base = nullptr;  // of the range that the source's runs come from
  Pages capacity{};            // of it
  ExtentSource* source = nullptr;
  KmallocBackend backend = KmallocBackend::kSlabs;
};

struct KmallocStats {
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  std::uint64_t objects = 0;   // live
  std::uint64_t refusals = 0;  // slabs that the source did not have
  std::uint64_t bypasses = 0;  // calls that found their CPU's cache in use
  Bytes live{};                // of live objects, as large as their class
  Bytes held{};                // frames of slabs; what is not live of them is free or cached
  Bytes marks{};               // that slabs need beside, at least
};

class Kmalloc : public MetadataObject {
 public:
  // Errors: kNoMemory, kSystem.
  [[nodiscard]] static Result<std::unique_ptr<Kmalloc>> create(const KmallocConfig& config);
  // Every object is gone with it, freed or not; its slabs go back to the source. Threads: nobody
  // uses it any more.
  ~Kmalloc() = default;
  Kmalloc(const Kmalloc&) = delete;
  Kmalloc& operator=(const Kmalloc&) = delete;

  // An object of at least `size` bytes; `tag`, at most kMaxKmallocTag, names its owner.
  // Threads: any; may make a system call when jemalloc's metadata grows, and never waits for one.
  // Errors: nullptr if the source has no slab, for size 0 and above kKmallocMaxBytes.
  // Source: kmalloc, slab (Linux).
  [[nodiscard]] void* allocate(std::size_t size, std::uint16_t tag);

  // Frees the live object at `address`; says what else it is and changes nothing if it is none.
  // Threads: any. Never fails, never allocates.
  KmallocObject free(void* address);

  // What `address` is. Out of date when it returns, unless the caller owns the object.
  [[nodiscard]] KmallocObject find(const void* address) const;

  // Bytes that an object asked for with `size`, of 1 to kKmallocMaxBytes, has.
  [[nodiscard]] std::size_t object_bytes(std::size_t size) const {
    return system_ != nullptr ? size : arenas_.object_bytes(size);
  }

  // True if an object asked for with `size` bytes has `held`.
  [[nodiscard]] bool may_hold(std::size_t held, std::size_t size) const;

  // Bytes that a live object at `address` may use; 0 if there is none.
  [[nodiscard]] std::size_t size(const void* address) const;

  // True if `address` hits a slab, or (kSystem) an object that is live or known as freed: then
  // free() and find() are the ones to ask. Threads: any; two loads on the slab backend.
  [[nodiscard]] bool owns(const void* address) const;

  // As SlabTable::sum_live(); nothing for the system's malloc.
  void sum_live(std::span<std::uint64_t> by_tag, std::uint16_t ignored) const {
    if (system_ == nullptr) {
      table_.sum_live(by_tag, ignored);
    }
  }

  // For the shrinker: gives cached objects and empty slabs back to the source, and returns how much
  // the source got. Threads: any; may take long under load.
  Bytes release();

  // Threads: any; parts are read one after the other.
  [[nodiscard]] KmallocStats stats() const;

  // Walks the tables and aborts on a broken invariant. Threads: needs quiet.
  void audit() const;

 private:
  Kmalloc() = default;
  [[nodiscard]] Status open(const KmallocConfig& config);

  SlabTable table_;
  SlabArenas arenas_;                      // dies before the table, which it writes
  std::unique_ptr<SystemObjects> system_;  // if that is the backend
};

}  // namespace keel
