// How an allocation may behave when memory is short.
#pragma once

#include <cstdint>

namespace keel {

// A set of promises; combine with |. kKernel is the absence of all of them.
enum class AllocFlags : std::uint32_t {
  kKernel = 0,        // may grow the store, reclaim and wait a little; nullptr at the cap
  kNoFs = 1U << 0,    // may not reclaim in ways that wait for the caller's own locks
  kNoWait = 1U << 1,  // free memory now or nullptr: no growth, no reclaim, no system call
  kNoFail = 1U << 2,  // never nullptr for a size within the limit: loops, says so, ignores kNoWait
  kZero = 1U << 3,    // the memory is zeroed, to the end of its last page (hardened: of its size)
  kRetryMayfail = 1U << 4,  // prefers a contiguous buffer and pays for it before falling back
  kNoWarn = 1U << 5,        // no message when it fails (kNoWait gives none anyway)
};

constexpr AllocFlags operator|(AllocFlags a, AllocFlags b) {
  return static_cast<AllocFlags>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
constexpr AllocFlags without(AllocFlags set, AllocFlags flag) {
  return static_cast<AllocFlags>(static_cast<std::uint32_t>(set) &
                                 ~static_cast<std::uint32_t>(flag));
}
constexpr bool has(AllocFlags set, AllocFlags flag) {
  return (static_cast<std::uint32_t>(set) & static_cast<std::uint32_t>(flag)) != 0;
}

}  // namespace keel
