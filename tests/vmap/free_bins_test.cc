#include "keel/vmap/free_bins.h"

#include <doctest/doctest.h>

using keel::FreeBins;
using keel::kNoIndex;

TEST_CASE("bins without runs have none to give") {
  const FreeBins bins;
  CHECK(bins.find(1) == kNoIndex);
  CHECK(bins.find_large() == kNoIndex);
}

TEST_CASE("a size beyond the largest bin finds nothing, whatever is free") {
  FreeBins bins;
  constexpr std::uint32_t kLargest = (std::uint32_t{1} << 31) - 1;
  bins.set_head(FreeBins::bin_of(kLargest), 5);
  CHECK(bins.find_large() == 5);
  CHECK(bins.find(std::uint32_t{1} << 30) == 5);
  CHECK(bins.find(kLargest) == kNoIndex);
  CHECK(bins.find(std::uint32_t{1} << 31) == kNoIndex);
  bins.set_head(FreeBins::bin_of(kLargest), kNoIndex);
  CHECK(bins.find_large() == kNoIndex);
}

TEST_CASE("the fit found is of the lowest bin whose runs all are long enough") {
  FreeBins bins;
  bins.set_head(FreeBins::bin_of(100), 1);
  bins.set_head(FreeBins::bin_of(104), 2);
  bins.set_head(FreeBins::bin_of(5000), 3);
  CHECK(bins.find(96) == 1);
  CHECK(bins.find(100) == 2);  // The bin of 100 begins at 96.
  CHECK(bins.find(105) == 3);
}
