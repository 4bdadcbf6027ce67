#include "log/hash.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "support/test_seed.h"

using namespace keel;

// The streamed hash may run another loop (AVX2) than the one-piece hash: they must never differ, or
// a log written on one machine would not be read on another.
TEST_CASE("a hash does not depend on how the bytes are cut, nor on the instruction set") {
  std::mt19937_64 random(keel_test::test_seed("hash", 1));
  std::vector<std::uint8_t> bytes(300'000);
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::uint8_t>(random()); });
  for (int i = 0; i < 200; ++i) {
    const std::size_t length = random() % bytes.size();
    Hasher hasher;
    for (std::size_t at = 0; at < length;) {
      const std::size_t piece = std::min(length - at, 1 + random() % 70'000);
      hasher.update(bytes.data() + at, piece);
      at += piece;
    }
    REQUIRE(hasher.digest() == hash64(bytes.data(), length));
  }
}

TEST_CASE("the hash is XXH3 with seed 0") {
  // From xxHash's own sanity tests: no bytes; and one zero byte differs from none.
  CHECK(hash64(nullptr, 0) == 0x2d06800538d394c2ULL);
  const std::uint8_t zero = 0;
  CHECK(hash64(&zero, 1) == 0xc44bdff4074eecdbULL);
}
