// Seeded randomness for model and stress tests: the seed is printed, and KEEL_TEST_SEED sets it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace keel_test {

class Seeded {
 public:
  explicit Seeded(const char* test) : seed_(choose()), engine_(seed_) {
    std::printf("%s: KEEL_TEST_SEED=%llu\n", test, static_cast<unsigned long long>(seed_));
    std::fflush(stdout);
  }
  [[nodiscard]] std::uint64_t seed() const { return seed_; }
  // In [0, below).
  std::uint64_t operator()(std::uint64_t below) { return engine_() % below; }
  // True once in `n`.
  bool one_in(std::uint64_t n) { return (*this)(n) == 0; }

 private:
  static std::uint64_t choose() {
    const char* given = std::getenv("KEEL_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  }

  std::uint64_t seed_;
  std::mt19937_64 engine_;
};

}  // namespace keel_test
