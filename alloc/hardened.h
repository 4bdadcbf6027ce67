// Hardened: what a hardened pool adds to a buffer's life (PoolConfig::hardened).
//
// Every buffer is mapped in the window with a guard page behind; the bytes between the size asked
// for and the end of its last page carry a pattern that is checked when it is freed. A freed buffer
// is made inaccessible at once, and its addresses and frames are kept out of use (quarantine) until
// `quarantine_bytes` of later ones have been freed. So a use after free faults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class Hardened {
 public:
  static constexpr std::size_t kSlots = 4096;  // buffers in the quarantine at most

  Hardened() = default;
  ~Hardened();
  Hardened(const Hardened&) = delete;
  Hardened& operator=(const Hardened&) = delete;

  [[nodiscard]] Status open(Bytes quarantine);
  [[nodiscard]] bool on() const { return slots_ != nullptr; }

  // Writes the pattern behind `used` bytes of a buffer that holds `held`.
  static void mark_end(std::byte* buffer, std::size_t used, std::size_t held);
  // First byte of the pattern that was changed; nullptr if none was.
  [[nodiscard]] static const std::byte* overrun(const std::byte* buffer, std::size_t used,
                                                std::size_t held);

  // Takes a buffer in, and gives the oldest out as long as there is too much.
  void put(Pfn buffer, Pages held) KEEL_EXCLUDES(lock_);
  // Next one that is due to be given back; false if none is. With `all` also those that are not.
  [[nodiscard]] bool take_due(Pfn& buffer, bool all) KEEL_EXCLUDES(lock_);
  [[nodiscard]] Pages pages() const KEEL_EXCLUDES(lock_);

 private:
  struct Slot {
    Pfn buffer;
    Pages held;
  };
  Slot* slots_ = nullptr;  // a ring
  Pages most_{};
  mutable Mutex lock_{LockRank::kLeaf};
  std::size_t first_ KEEL_GUARDED_BY(lock_) = 0;
  std::size_t count_ KEEL_GUARDED_BY(lock_) = 0;
  Pages pages_ KEEL_GUARDED_BY(lock_){};
};

}  // namespace keel
