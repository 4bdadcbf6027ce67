#include "keel/alloc/block_counts.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>

using namespace keel;

namespace {

// The largest block that can stand at its first frame, then at the next one, and so on.
BlockCounts::Orders cut(std::uint32_t first, std::uint32_t length) {
  BlockCounts::Orders orders{};
  for (const std::uint32_t end = first + length; first != end;) {
    const auto aligned = static_cast<unsigned>(std::countr_zero(first | 1U << kMaxOrder));
    const unsigned fits = static_cast<unsigned>(std::bit_width(end - first)) - 1;
    const unsigned order = std::min(aligned, fits);
    ++orders[order];
    first += 1U << order;
  }
  return orders;
}

}  // namespace

TEST_CASE("a run counts as the blocks that it can be cut into, wherever it lies") {
  for (std::uint32_t first = 0; first < 2300; ++first) {
    for (std::uint32_t length = 1; length < 2600; length += length < 20 ? 1 : 1 + first % 13) {
      BlockCounts counts;
      counts.add(first, length);
      const bool same = counts.orders() == cut(first, length);
      if (!same) {
        CAPTURE(first);
        CAPTURE(length);
        REQUIRE(same);
      }
      counts.remove(first, length);
      REQUIRE_UNARY(counts.orders() == BlockCounts::Orders{});
    }
  }
  // The last run that 32 bits tell.
  BlockCounts counts;
  counts.add(UINT32_MAX - 4999, 4999);
  CHECK(counts.orders() == cut(UINT32_MAX - 4999, 4999));
}
