// WaitWord: threads sleep on it until they are woken, all or some of them, few by few.
//
// For waiters that each have a state of their own, changed by someone who holds no lock while he
// wakes them: a condition variable's waiter wakes into the mutex that its waker still holds.
//   waiter: seen = word.value(); if (my state says so) return; word.wait(seen, my bit, deadline);
//   waker:  change the states; word.wake(bits);
// I1 A waker that changes a state and then wakes is never missed: the value moves with each wake.
// Source: futex(2), FUTEX_WAIT_BITSET.
#pragma once

#include <atomic>
#include <cstdint>

namespace keel {

class WaitWord {
 public:
  static constexpr std::uint64_t kForever = UINT64_MAX;
  static constexpr std::uint32_t kEverybody = UINT32_MAX;

  // Acquire pairs with wake(): who sees the new value sees the states that were changed before.
  [[nodiscard]] std::uint32_t value() const { return value_.load(std::memory_order_acquire); }
  // Sleeps unless the value has moved on from `seen`; until a wake() with one of `bits`, or the
  // moment `deadline_ns` of the monotonic clock: false then. Wakes without a reason happen.
  bool wait(std::uint32_t seen, std::uint32_t bits, std::uint64_t deadline_ns);
  // Wakes all who sleep with one of these bits.
  void wake(std::uint32_t bits);

 private:
  std::atomic<std::uint32_t> value_{0};
};

}  // namespace keel
