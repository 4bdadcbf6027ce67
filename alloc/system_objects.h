// SystemObjects: the system's malloc behind kmalloc's calls, for sanitizers and Valgrind, which
// know every access to its memory, and where it was allocated and freed.
//
// Slower by design: one lock, one sorted map. It knows its live objects, and the last kRemembered
// that were freed; an older address that is freed again is kUnknown here.
// Locks: kLeaf over the map and the ring. The system's calls are made outside it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "keel/base/metadata_allocator.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "slab_table.h"

namespace keel {

class SystemObjects : public MetadataObject {
 public:
  static constexpr std::size_t kRemembered = 4096;

  SystemObjects() = default;
  // Frees what is live still.
  ~SystemObjects();
  SystemObjects(const SystemObjects&) = delete;
  SystemObjects& operator=(const SystemObjects&) = delete;

  // Exactly `size` bytes for who checks bounds, aligned as kmalloc's; nullptr if there are none.
  [[nodiscard]] void* allocate(std::size_t size, std::uint16_t tag) KEEL_EXCLUDES(lock_);
  KmallocObject free(void* address) KEEL_EXCLUDES(lock_);
  [[nodiscard]] KmallocObject find(const void* address) const KEEL_EXCLUDES(lock_);
  // Walks the map and aborts if it does not add up; gives what it counted, of pages none.
  SlabTable::Census audit() const KEEL_EXCLUDES(lock_);

  struct Counts {
    std::uint64_t allocations = 0;
    std::uint64_t frees = 0;
    Bytes live{};
  };
  [[nodiscard]] Counts counts() const KEEL_EXCLUDES(lock_);

 private:
  using Address = std::uintptr_t;
  struct Object {
    std::size_t bytes;
    std::uint16_t tag;
  };
  struct Freed {
    Address address = 0;
    Object object{};
  };
  using Map =
      std::map<Address, Object, std::less<>, MetadataAllocator<std::pair<const Address, Object>>>;

  [[nodiscard]] bool insert(Address address, Object object) KEEL_EXCLUDES(lock_);
  [[nodiscard]] KmallocObject name(Address address) const KEEL_REQUIRES(lock_);

  mutable Mutex lock_{LockRank::kLeaf};
  Map live_ KEEL_GUARDED_BY(lock_);
  std::array<Freed, kRemembered> freed_ KEEL_GUARDED_BY(lock_){};
  Counts counts_ KEEL_GUARDED_BY(lock_);
};

}  // namespace keel
