// RangeEntry: what the window knows of one of its pages. 24 bytes, in a flat table over the window.
//
// The first entry of a range says all about it. Entries are written under the lock of their shard
// and read under it, with one exception: find() reads the first entry of an area that its caller
// owns without any lock. So each field is an atomic; relaxed, because what the lock orders needs no
// more, and the lock-free reader is ordered by the tag alone (publish_live, live_tag).
#pragma once

#include <atomic>
#include <cstdint>

namespace keel {

// Page of the window. 28 bits, so that a tag holds a length beside the state.
using PageIndex = std::uint32_t;
inline constexpr std::uint32_t kMaxWindowPages = (std::uint32_t{1} << 28) - 1;

enum class RangeState : std::uint8_t {
  kNone,      // nothing begins or ends here, as far as a free run is concerned
  kFreeHead,  // pages: of the run
  kFreeTail,  // pages: of the run
  kFreeBusy,  // first page of free pages that a purge has taken along
  kPooled,    // free, kept whole for the next area of its size
  kMapping,   // area whose mappings are being made
  kLive,
  kLazy,      // unmapped, aliases still there, in the lazy list
  kPurging,   // taken out of the lazy list by a purge
  kInterior,  // pages: back to the first page of the area or pooled range
};

[[nodiscard]] constexpr bool is_area(RangeState state) {
  return state >= RangeState::kMapping && state <= RangeState::kPurging;
}

// An atomic that reads and writes like a plain field, relaxed.
template <class T>
class Relaxed {
 public:
  operator T() const { return value_.load(std::memory_order_relaxed); }  // NOLINT(*-explicit-*)
  Relaxed& operator=(T value) {
    value_.store(value, std::memory_order_relaxed);
    return *this;
  }
  Relaxed& operator=(const Relaxed& other) { return *this = static_cast<T>(other); }
  Relaxed(const Relaxed&) = delete;

  [[nodiscard]] T load(std::memory_order order) const { return value_.load(order); }
  void store(T value, std::memory_order order) { value_.store(value, order); }

 private:
  std::atomic<T> value_;
};

struct RangeEntry {
  Relaxed<std::uint32_t> tag;  // state in the low four bits, pages above
  // Area: its kernel mappings. Free: pages of the last area that began here, 0 if none. The top bit
  // says that the area has, or had, a guard page.
  Relaxed<std::uint32_t> count;
  Relaxed<const char*> owner;   // of the area, or of the last one
  Relaxed<std::uint32_t> prev;  // free: in its list; lazy: in the lazy list; live: half the cookie
  Relaxed<std::uint32_t> next;  // likewise; the high half

  static constexpr std::uint32_t kGuardBit = std::uint32_t{1} << 31;
  static constexpr std::uint32_t kCutBit = std::uint32_t{1} << 30;  // of an area: see note_cut()

  [[nodiscard]] RangeState state() const { return static_cast<RangeState>(tag & 15U); }
  [[nodiscard]] std::uint32_t pages() const { return tag >> 4; }
  [[nodiscard]] std::uint32_t number() const { return count & ~(kGuardBit | kCutBit); }
  [[nodiscard]] bool guard() const { return (count & kGuardBit) != 0; }
  [[nodiscard]] bool cut() const { return (count & kCutBit) != 0; }
  [[nodiscard]] std::uint64_t cookie() const { return std::uint64_t{next} << 32 | prev; }
  void set(RangeState state, std::uint32_t pages) { tag = tag_of(state, pages); }
  void set_state(RangeState state) { set(state, pages()); }
  void set_number(std::uint32_t number) { count = (count & (kGuardBit | kCutBit)) | number; }

  [[nodiscard]] static constexpr std::uint32_t tag_of(RangeState state, std::uint32_t pages) {
    return pages << 4 | static_cast<std::uint32_t>(state);
  }
  // Release pairs with the acquire in live_tag(): who sees the area live sees what it is.
  void publish_live() { tag.store(tag_of(RangeState::kLive, pages()), std::memory_order_release); }
};
static_assert(sizeof(RangeEntry) == 24);
static_assert(std::atomic<const char*>::is_always_lock_free);

}  // namespace keel
