#include "size_class.h"

#include <doctest/doctest.h>

using namespace keel;

TEST_CASE("a class's buffers have at least the pages asked for, and few more") {
  for (std::uint32_t pages = 1; pages <= kMaxClassPages; ++pages) {
    const unsigned found = size_class_of(pages);
    REQUIRE(found < kSizeClasses);
    REQUIRE(pages_of_class(found) >= pages);
    REQUIRE(pages_of_class(found) - pages <= pages / 8);
    REQUIRE((found == 0 || pages_of_class(found - 1) < pages));
  }
}

TEST_CASE("a buffer is kept under the largest class that it serves in full, or none") {
  CHECK(kept_class_of(0) == kNoClass);
  CHECK(kept_class_of(kMaxClassPages + 1) == kNoClass);
  for (std::uint32_t pages = 1; pages <= kMaxClassPages; ++pages) {
    const std::uint8_t kept = kept_class_of(pages);
    if (kept == kNoClass) {
      REQUIRE(pages_of_class(size_class_of(pages)) != pages);
      REQUIRE(pages < kMaxExactPages + 8);
    } else {
      REQUIRE(pages_of_class(kept) <= pages);
      REQUIRE((kept == kSizeClasses - 1 || pages_of_class(kept + 1U) > pages));
    }
  }
}
