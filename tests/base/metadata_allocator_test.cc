#include "keel/base/metadata_allocator.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <new>

#include "support/fault_os.h"

using keel::MetadataAllocator;
using keel::MetadataVector;

TEST_CASE("what containers hold is the metadata of the Os in force, and given back") {
  keel_test::FaultOs os;
  const keel::ScopedOs scope(os);
  {
    MetadataVector<std::uint64_t> numbers(100, 7);
    CHECK(os.metadata_held() == 1);
    CHECK(numbers[99] == 7);
  }
  CHECK(os.metadata_held() == 0);
}

TEST_CASE("metadata that cannot be had throws, and more than there are addresses asks nobody") {
  keel_test::FaultOs os;
  const keel::ScopedOs scope(os);
  MetadataAllocator<std::uint64_t> allocator;
  // A product of count and size that wraps would be 8 bytes.
  constexpr std::size_t kWraps = std::numeric_limits<std::size_t>::max() / 8 + 2;
  CHECK_THROWS_AS((void)allocator.allocate(kWraps), std::bad_alloc);
  CHECK(os.all_calls() == 0);
  os.fail_nth(1);
  CHECK_THROWS_AS((void)allocator.allocate(1), std::bad_alloc);
  CHECK(os.metadata_held() == 0);
}
