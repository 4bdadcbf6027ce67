// Switches by which tests bring back a mistake, to show that what would catch it does. Debug builds
// only; everywhere else they are constants, and what they guard is not there.
#pragma once

#include <atomic>

namespace keel {

#if defined(KEEL_DEBUG)
// A commit makes sure of its snapshots' memory under the context lock, and waits for it there.
inline std::atomic<bool> g_allocate_under_context_lock{false};
inline bool allocate_under_context_lock() {
  return g_allocate_under_context_lock.load(std::memory_order_relaxed);  // Set before threads.
}
#else
constexpr bool allocate_under_context_lock() { return false; }
#endif

}  // namespace keel
