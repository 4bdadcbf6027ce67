// Free runs of pages by size: two-level bins with bitmaps, so that a fit is found in O(1).
//
// Bins hold the index of their first run; the runs themselves are linked through their owner's
// records (of the window's pages, or of frames). Under 8 pages each size has its bin; above, every
// doubling has eight.
// Source: M. Masmano et al., "TLSF: a new dynamic memory allocator for real-time systems" (2004).
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace keel {

inline constexpr std::uint32_t kNoIndex = ~std::uint32_t{0};

class FreeBins {
 public:
  static constexpr unsigned kSubBits = 3;
  static constexpr unsigned kSub = 1U << kSubBits;
  static constexpr unsigned kLevels = 32 - kSubBits;  // sizes below 2^31 pages

  struct Bin {
    unsigned level;
    unsigned sub;
    bool operator==(const Bin&) const = default;
  };

  FreeBins() {
    for (auto& level : heads_) {
      level.fill(kNoIndex);
    }
  }

  [[nodiscard]] static Bin bin_of(std::uint32_t pages) {
    if (pages < kSub) {
      return {0, pages};
    }
    const unsigned top = static_cast<unsigned>(std::bit_width(pages)) - 1;
    return {top - kSubBits + 1, (pages >> (top - kSubBits)) & (kSub - 1)};
  }

  [[nodiscard]] std::uint32_t head(Bin bin) const { return heads_[bin.level][bin.sub]; }

  void set_head(Bin bin, std::uint32_t index) {
    heads_[bin.level][bin.sub] = index;
    const auto bit = static_cast<std::uint8_t>(1U << bin.sub);
    if (index != kNoIndex) {
      subs_[bin.level] = static_cast<std::uint8_t>(subs_[bin.level] | bit);
    } else {
      subs_[bin.level] = static_cast<std::uint8_t>(subs_[bin.level] & ~bit);
    }
    const std::uint32_t level_bit = std::uint32_t{1} << bin.level;
    levels_ = subs_[bin.level] != 0 ? levels_ | level_bit : levels_ & ~level_bit;
  }

  // First run of the lowest bin whose runs all have at least `pages`; kNoIndex if there is none.
  // The bin of `pages` itself may hold a fit too, among runs that are too small.
  [[nodiscard]] std::uint32_t find(std::uint32_t pages) const {
    const unsigned width = static_cast<unsigned>(std::bit_width(pages));
    const std::uint32_t step = width > kSubBits ? std::uint32_t{1} << (width - 1 - kSubBits) : 1;
    const Bin from = bin_of(pages + step - 1);
    if (from.level >= kLevels) {
      return kNoIndex;
    }
    const unsigned subs = subs_[from.level] & (~0U << from.sub);
    if (subs != 0) {
      return head({from.level, static_cast<unsigned>(std::countr_zero(subs))});
    }
    const std::uint32_t levels = levels_ & (~std::uint32_t{1} << from.level);
    if (levels == 0) {
      return kNoIndex;
    }
    const auto level = static_cast<unsigned>(std::countr_zero(levels));
    return head({level, static_cast<unsigned>(std::countr_zero(unsigned{subs_[level]}))});
  }

  // Calls visit(run) with the first run of every bin that has one.
  template <class Visit>
  void for_each_head(Visit&& visit) const {
    for (const auto& level : heads_) {
      for (const std::uint32_t run : level) {
        if (run != kNoIndex) {
          visit(run);
        }
      }
    }
  }

  // First run of the highest bin that has one, no more than an eighth smaller than the largest.
  [[nodiscard]] std::uint32_t find_large() const {
    if (levels_ == 0) {
      return kNoIndex;
    }
    const auto level = static_cast<unsigned>(std::bit_width(levels_)) - 1;
    const auto sub = static_cast<unsigned>(std::bit_width(unsigned{subs_[level]})) - 1;
    return head({level, sub});
  }

 private:
  std::array<std::array<std::uint32_t, kSub>, kLevels> heads_{};
  std::array<std::uint8_t, kLevels> subs_{};
  std::uint32_t levels_ = 0;
};

static_assert(FreeBins::kLevels <= 32, "levels are a bitmap of 32 bits");

}  // namespace keel
