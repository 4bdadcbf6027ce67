// SlabTable: which frames are slabs, and which objects in them are live. Knows no allocator.
//
// I1 A frame of a slab says how far before it the slab's first frame stands; that one says how many
//    frames the slab has and how large its objects are. So a lookup is two loads, with no lock.
// I2 Each 16 bytes of a frame have a mark: 0, or the owner's tag of the object that begins (live)
//    or last began (freed) there. Only freeing a live object turns a mark from live to freed, so of
//    any number of frees of one object exactly one succeeds.
// I3 Marks outlive the slab: an address that was freed stays known as that until it is used again.
// Its memory, 516 bytes a frame, is reserved at once and populated by use; it is not given back.
// Locks: none. All is atomic and relaxed: who may touch an object knows it from someone who gave it
// to him, which orders its marks too; who may not only wants a name for his mistake.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

// Owner tags of small objects are small integers, 0 to kMaxKmallocTag.
inline constexpr std::uint16_t kMaxKmallocTag = 0x7FFE;

enum class KmallocOutcome : std::uint8_t {
  kOk,        // the start of a live object
  kInterior,  // inside a live object
  kDouble,    // the start of an object that was freed, and not used since
  kUnknown,   // never an object's start
};

// What an address is to kmalloc: the object that it hits, as far as there is one.
struct KmallocObject {
  KmallocOutcome outcome = KmallocOutcome::kUnknown;
  const void* start = nullptr;  // unless kUnknown
  Bytes bytes{};                // that it may use; 0 if a freed object's slab is gone
  std::uint16_t tag = 0;
};

class SlabTable {
 public:
  static constexpr std::size_t kSlotBytes = 16;
  static constexpr std::size_t kBytesPerFrame =
      kPageBytes / kSlotBytes * sizeof(std::uint16_t) + sizeof(std::uint32_t);

  SlabTable() = default;
  ~SlabTable();
  SlabTable(const SlabTable&) = delete;
  SlabTable& operator=(const SlabTable&) = delete;

  // Reserves tables for `capacity` frames from `base`. Errors: kNoMemory, kSystem.
  [[nodiscard]] Status open(const void* base, Pages capacity);

  // Whether it lies in the range, and in a slab.
  [[nodiscard]] bool covers(const void* address) const;
  [[nodiscard]] bool is_slab(const void* address) const;

  // `pages` frames become a slab, or cease to be one.
  void add(const void* slab, Pages pages);
  void remove(const void* slab, Pages pages);

  // The object at `start`, in a slab, is live now, in a slab whose objects have `bytes` each.
  void mark_live(const void* start, std::size_t bytes, std::uint16_t tag);

  // Frees the live object that starts at `address`; anything else changes nothing, and is named.
  KmallocObject mark_freed(const void* address);

  // What `address` is. Out of date when it returns, unless the caller owns it.
  [[nodiscard]] KmallocObject find(const void* address) const;

  // Adds the bytes of live objects to the sum of their owners' tags, without the flags in
  // `ignored`. Out of date when it returns.
  void sum_live(std::span<std::uint64_t> by_tag, std::uint16_t ignored) const;

  // What an audit counts. Aborts if records do not add up. Threads: needs quiet.
  struct Census {
    Pages pages{};
    std::uint64_t objects = 0;
    Bytes bytes{};
  };
  [[nodiscard]] Census audit() const;

 private:
  // One a frame: distance to the slab's first frame + 1, 0 outside slabs | of the first frame:
  // pages of the slab << 8 | bytes of its objects / 16 << 16, 0 before there was one.
  using Record = std::atomic<std::uint32_t>;
  using Mark = std::atomic<std::uint16_t>;

  [[nodiscard]] std::size_t frame_of(const void* address) const;
  [[nodiscard]] std::size_t head_of(std::size_t frame, std::uint32_t record) const;
  [[nodiscard]] Mark& mark_at(const void* address) const;
  [[nodiscard]] KmallocObject name(const void* address) const;
  [[nodiscard]] const std::byte* address_of(std::size_t frame) const;
  [[nodiscard]] std::size_t table_bytes() const;
  void audit_slab(std::size_t head, Census& census) const;

  const std::byte* base_ = nullptr;
  std::size_t frames_ = 0;
  void* table_ = nullptr;  // marks, then records
  Mark* marks_ = nullptr;
  Record* records_ = nullptr;
};

}  // namespace keel
