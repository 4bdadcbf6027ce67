// Tells AddressSanitizer and Valgrind which bytes of the pool are somebody's.
//
// In other builds and runs these are nothing, or (Valgrind's header found) a few instructions.
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

// False if the calls below do nothing, so that what they are given need not be worked out.
#if defined(KEEL_UNDER_ASAN) || defined(KEEL_HAVE_VALGRIND)
inline constexpr bool kPoisons = true;
#else
inline constexpr bool kPoisons = false;
#endif

// `bytes` from `at` are a buffer's from now on, up to `held` nobody's.
inline void unpoison_buffer([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes,
                            [[maybe_unused]] std::size_t held) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(at) + bytes, held - bytes);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_MALLOCLIKE_BLOCK(at, bytes, 0, 0);
#endif
}

// Nobody's until it is handed out again.
inline void poison_buffer([[maybe_unused]] void* at, [[maybe_unused]] std::size_t held) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_POISON_MEMORY_REGION(at, held);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  VALGRIND_FREELIKE_BLOCK(at, 0);
#endif
}

// As the system's mmap gives it: what lies there may be used by whoever maps it.
inline void unpoison_range([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
#if defined(KEEL_UNDER_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
#endif
#if defined(KEEL_HAVE_VALGRIND)
  (void)VALGRIND_MAKE_MEM_DEFINED(at, bytes);
#endif
}

}  // namespace keel
