// Parker: one thread sleeps on it until another changes its word.
//
// For waiters that are to be woken one by one, by someone who holds no lock: a condition variable's
// waiter wakes into the mutex that its waker still holds.
// I1 Only the owner parks. set() may be the last thing that touches the parker: the owner may
//    destroy it as soon as it sees the new value (waking then touches its address, not its memory).
// Source: futex(2).
#pragma once

#include <atomic>
#include <cstdint>

namespace keel {

class Parker {
 public:
  static constexpr std::uint64_t kForever = UINT64_MAX;

  // Acquire pairs with set() and replace().
  [[nodiscard]] std::uint32_t value() const { return word_.load(std::memory_order_acquire); }
  // Sleeps while the value is `value`, until the moment `deadline_ns` of the monotonic clock.
  // Returns false if that passed. Wakes without a reason happen: call it in a loop.
  bool park_while(std::uint32_t value, std::uint64_t deadline_ns);
  // Changes the value and wakes the owner.
  void set(std::uint32_t value);
  // As set(), if it was `expected`. Does not wake when it was not.
  bool replace(std::uint32_t expected, std::uint32_t value);
  // As replace(), without waking: for the owner.
  bool take(std::uint32_t expected, std::uint32_t value) {
    return word_.compare_exchange_strong(expected, value, std::memory_order_acq_rel);
  }

 private:
  void wake();

  std::atomic<std::uint32_t> word_{0};
};

}  // namespace keel
