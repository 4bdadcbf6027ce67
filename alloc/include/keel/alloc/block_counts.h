// How many blocks of each order free runs are made of, kept up to date run by run.
//
// A run is cut into the largest aligned powers of two that it is made of. From its first frame to
// the most aligned border in it (the first multiple of the largest block, if it has one) they grow,
// one for each bit of the distance; from the last such border to its end they shrink, likewise. So
// a run of any length costs a few additions, and nobody walks over what is free.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace keel {

inline constexpr unsigned kMaxOrder = 10;

class BlockCounts {
 public:
  using Orders = std::array<std::uint64_t, kMaxOrder + 1>;

  void add(std::uint32_t first, std::uint32_t length) { change(first, length, 1); }
  void remove(std::uint32_t first, std::uint32_t length) { change(first, length, ~0U); }

  [[nodiscard]] Orders orders() const {
    Orders orders{};
    for (std::size_t order = 0; order < kMaxOrder; ++order) {
      orders[order] = below_largest_[order];
    }
    orders[kMaxOrder] = largest_;
    return orders;
  }

 private:
  static constexpr std::uint32_t kLargest = std::uint32_t{1} << kMaxOrder;
  // Some more than there are, so that the compiler makes whole vectors of them.
  static constexpr std::size_t kLanes = 12;
  static_assert(kLanes >= kMaxOrder);
  static constexpr std::array<std::uint32_t, kLanes> kBits = {1,  2,   4,   8,   16,   32,
                                                              64, 128, 256, 512, 1024, 2048};

  // `by` is 1 or, which wraps, -1.
  void change(std::uint32_t first, std::uint32_t length, std::uint32_t by) {
    const std::uint32_t end = first + length;
    std::uint32_t from = (first + kLargest - 1) & ~(kLargest - 1);
    std::uint32_t to = end & ~(kLargest - 1);
    if (from > to) {
      const unsigned top = static_cast<unsigned>(std::bit_width(first ^ end)) - 1;
      from = to = end >> top << top;
    }
    largest_ += by * ((to - from) >> kMaxOrder);
    const std::uint32_t below = from - first;
    const std::uint32_t above = end - to;
    for (std::size_t order = 0; order < kLanes; ++order) {
      const std::uint32_t bit = kBits[order];
      below_largest_[order] += ((below & bit) == bit ? by : 0) + ((above & bit) == bit ? by : 0);
    }
  }

  std::array<std::uint32_t, kLanes> below_largest_{};
  std::uint32_t largest_ = 0;
};

}  // namespace keel
