#include "keel/base/units.h"

#include <doctest/doctest.h>

#include <initializer_list>
#include <limits>
#include <type_traits>

using namespace keel;

TEST_CASE("a page count rounds up and does not overflow") {
  CHECK(pages_for(0) == Pages(0));
  CHECK(pages_for(1) == Pages(1));
  CHECK(pages_for(4096) == Pages(1));
  CHECK(pages_for(4097) == Pages(2));
  CHECK(pages_for(std::numeric_limits<std::size_t>::max()) == Pages(std::uint64_t{1} << 52));
}

TEST_CASE("a power of two has one bit, and zero is none") {
  for (const std::size_t power : {1U, 2U, 4096U}) {
    CHECK(is_power_of_two(power));
    CHECK_FALSE(is_power_of_two(3 * power));
  }
  CHECK_FALSE(is_power_of_two(std::size_t{0}));
}

TEST_CASE("positions and quantities do not mix") {
  CHECK(Lsn(100) - Lsn(40) == Bytes(60));
  CHECK(Lsn(100) + Bytes(1) == Lsn(101));
  static_assert(!std::is_convertible_v<Lsn, Sequence>);
  static_assert(!std::is_convertible_v<std::uint64_t, Lsn>);
  static_assert(!std::is_convertible_v<Bytes, Pages>);
}
