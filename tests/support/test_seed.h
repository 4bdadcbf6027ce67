// The seed of a test's random choices, and how much a test may do in this build.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KEEL_TEST_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEL_TEST_SANITIZED 1
#endif

namespace keel_test {

// KEEL_TEST_SEED if it is set, else `fallback`; says which, so that a failure can be repeated.
inline std::uint64_t test_seed(const char* test, std::uint64_t fallback) {
  const char* set = std::getenv("KEEL_TEST_SEED");
  const std::uint64_t seed = set != nullptr ? std::strtoull(set, nullptr, 0) : fallback;
  (void)std::printf("%s: KEEL_TEST_SEED=%llu\n", test, static_cast<unsigned long long>(seed));
  return seed;
}

// A number of the environment, or else `fallback`.
inline std::uint64_t setting(const char* name, std::uint64_t fallback) {
  const char* set = std::getenv(name);
  return set != nullptr ? std::strtoull(set, nullptr, 0) : fallback;
}

// KEEL_TEST_ROUNDS times the usual amount of work (nightly runs set it), less under sanitizers.
inline std::uint64_t test_rounds(std::uint64_t usual, std::uint64_t sanitized) {
  const char* set = std::getenv("KEEL_TEST_ROUNDS");
  const std::uint64_t factor = set != nullptr ? std::strtoull(set, nullptr, 0) : 1;
#if defined(KEEL_TEST_SANITIZED)
  (void)usual;
  return sanitized * factor;
#else
  (void)sanitized;
  return usual * factor;
#endif
}

}  // namespace keel_test
