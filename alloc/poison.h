// Tells AddressSanitizer and Valgrind which bytes of the pool are somebody's.
//
// AddressSanitizer is there or not when this is compiled. Whether a run is Valgrind's shows at run
// time only: a pool asks once, when it is made, and keeps off its fast path if so. Where neither is
// at work the calls below are nothing, or (Valgrind's header found) a few instructions that do
// nothing, on slow paths only.
#pragma once

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEL_UNDER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KEEL_UNDER_ASAN 1
#endif

#if defined(KEEL_UNDER_ASAN)
#include <sanitizer/asan_interface.h>
#endif
#if defined(KEEL_HAVE_VALGRIND)
#include <valgrind/memcheck.h>
#endif

namespace keel {

// True if every path must poison, the fast one too.
#if defined(KEEL_UNDER_ASAN)
inline constexpr bool kPoisons = true;
#else
inline constexpr bool kPoisons = false;
#endif

// True if this run is Valgrind's. For whoever makes a pool, once.
[[nodiscard]] inline bool runs_on_valgrind() {
#if defined(KEEL_HAVE_VALGRIND)
  return RUNNING_ON_VALGRIND != 0;
#else
  return false;
#endif
}

// `bytes` from `at` are a buffer's from now on, up to `held` nobody's.
inline void unpoison_buffer([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes,
                            [[maybe_unused]] std::size_t held) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(at) + bytes, held - bytes);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_MALLOCLIKE_BLOCK(at, bytes, 0, 0);
  VALGRIND_MAKE_MEM_NOACCESS(static_cast<std::byte*>(at) + bytes, held - bytes);
#endif
}

// A buffer of `before` bytes has `bytes` from now on, up to `held` nobody's.
inline void resize_buffer([[maybe_unused]] void* at, [[maybe_unused]] std::size_t before,
                          [[maybe_unused]] std::size_t bytes, [[maybe_unused]] std::size_t held) {
#if defined(KEEL_UNDER_ASAN)
  unpoison_buffer(at, bytes, held);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_RESIZEINPLACE_BLOCK(at, before, bytes, 0);
  VALGRIND_MAKE_MEM_NOACCESS(static_cast<std::byte*>(at) + bytes, held - bytes);
#endif
}

// Nobody's until it is handed out again.
inline void poison_buffer([[maybe_unused]] void* at, [[maybe_unused]] std::size_t held) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_POISON_MEMORY_REGION(at, held);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_FREELIKE_BLOCK(at, 0);
  VALGRIND_MAKE_MEM_NOACCESS(at, held);
#endif
}

// Memory that was never a buffer's: nobody's.
inline void poison_range([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_POISON_MEMORY_REGION(at, bytes);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_MAKE_MEM_NOACCESS(at, bytes);
#endif
}

// All of a buffer, to the end of its pages, may be used.
inline void unpoison_range([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_MAKE_MEM_DEFINED(at, bytes);
#endif
}

// Before addresses go back to the system: whoever maps something there may use it. Valgrind sees
// that from the system calls.
inline void forget_range([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
#endif
}

}  // namespace keel
