// Points at atomic operations, for builds that ask for them (the preset `sim`).
//
// There the layers are compiled by clang with what ThreadSanitizer's runtime would be called for,
// atomic operations only, and this stands in for that runtime: each operation is a point of the
// thread's scheduler, and then the operation. So a seed may let others go on between two atomic
// operations of one function, as a machine would. A point comes before its operation, never after:
// between a look at a state and the wait for its change nobody else goes on (thread_scheduler.h).
#include "keel/base/thread_scheduler.h"

#if defined(KEEL_SIM_ATOMICS)

#include <atomic>
#include <cstdint>

namespace {

void at_atomic() {
  if (keel::ThreadScheduler* scheduler = keel::thread_scheduler(); scheduler != nullptr) {
    scheduler->point(keel::ThreadPoint::kAtomic, 0);
  }
}

}  // namespace

// The strongest order always: threads take turns, so that it changes nothing but what else may run.
#define KEEL_ATOMIC_RMW(bits, type, name, call)                                      \
  extern "C" type __tsan_atomic##bits##_##name(volatile type* at, type value, int) { \
    at_atomic();                                                                     \
    return call(at, value, __ATOMIC_SEQ_CST);                                        \
  }
#define KEEL_ATOMIC_CAS(bits, type, name)                                                      \
  extern "C" int __tsan_atomic##bits##_##name(volatile type* at, type* expected, type to, int, \
                                              int) {                                           \
    at_atomic();                                                                               \
    return __atomic_compare_exchange_n(at, expected, to, false, __ATOMIC_SEQ_CST,              \
                                       __ATOMIC_SEQ_CST)                                       \
               ? 1                                                                             \
               : 0;                                                                            \
  }
#define KEEL_ATOMICS(bits, type)                                                               \
  extern "C" type __tsan_atomic##bits##_load(const volatile type* at, int) {                   \
    at_atomic();                                                                               \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                              \
  }                                                                                            \
  extern "C" void __tsan_atomic##bits##_store(volatile type* at, type value, int) {            \
    at_atomic();                                                                               \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                            \
  KEEL_ATOMIC_RMW(bits, type, exchange, __atomic_exchange_n)                                   \
  KEEL_ATOMIC_RMW(bits, type, fetch_add, __atomic_fetch_add)                                   \
  KEEL_ATOMIC_RMW(bits, type, fetch_sub, __atomic_fetch_sub)                                   \
  KEEL_ATOMIC_RMW(bits, type, fetch_and, __atomic_fetch_and)                                   \
  KEEL_ATOMIC_RMW(bits, type, fetch_or, __atomic_fetch_or)                                     \
  KEEL_ATOMIC_RMW(bits, type, fetch_xor, __atomic_fetch_xor)                                   \
  KEEL_ATOMIC_CAS(bits, type, compare_exchange_strong)                                         \
  KEEL_ATOMIC_CAS(bits, type, compare_exchange_weak)                                           \
  extern "C" type __tsan_atomic##bits##_compare_exchange_val(volatile type* at, type expected, \
                                                             type to, int, int) {              \
    at_atomic();                                                                               \
    (void)__atomic_compare_exchange_n(at, &expected, to, false, __ATOMIC_SEQ_CST,              \
                                      __ATOMIC_SEQ_CST);                                       \
    return expected;                                                                           \
  }

// What the compiler calls has these names.
// NOLINTBEGIN(bugprone-reserved-identifier)
KEEL_ATOMICS(8, std::uint8_t)
KEEL_ATOMICS(16, std::uint16_t)
KEEL_ATOMICS(32, std::uint32_t)
KEEL_ATOMICS(64, std::uint64_t)
extern "C" void __tsan_init() {}
extern "C" void __tsan_atomic_thread_fence(int) { at_atomic(); }
extern "C" void __tsan_atomic_signal_fence(int) {}
// NOLINTEND(bugprone-reserved-identifier)

#endif
