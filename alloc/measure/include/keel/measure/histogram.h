// Counts of durations in fixed buckets: no memory, no sorting, a few ns an entry.
//
// A bucket is at most 1/128 of its value wide, so a quantile is right to 0.8 %.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace keel::bench {

class Histogram {
 public:
  void add(std::uint64_t value) {
    ++buckets_[index_of(value)];
    ++count_;
    sum_ += value;
    max_ = value > max_ ? value : max_;
  }
  void merge(const Histogram& other) {
    for (std::size_t i = 0; i < kBuckets; ++i) {
      buckets_[i] += other.buckets_[i];
    }
    count_ += other.count_;
    sum_ += other.sum_;
    max_ = other.max_ > max_ ? other.max_ : max_;
  }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] double max() const { return static_cast<double>(max_); }
  [[nodiscard]] double mean() const {
    return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
  }
  // The value that a share `q` of the entries does not pass; 0 if there are none.
  [[nodiscard]] double quantile(double q) const {
    const auto rank = static_cast<std::uint64_t>(q * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += buckets_[i];
      if (seen > rank || (seen == count_ && seen != 0)) {
        return middle_of(i);
      }
    }
    return 0;
  }

 private:
  static constexpr unsigned kBits = 7;
  static constexpr unsigned kLargestShift = 33;  // 2^41 ticks: many minutes
  static constexpr std::size_t kBuckets = (kLargestShift + 2) << kBits;

  static unsigned shift_of(std::uint64_t value) {
    const unsigned width = static_cast<unsigned>(std::bit_width(value));
    return width <= kBits + 1 ? 0 : width - (kBits + 1);
  }
  static std::size_t index_of(std::uint64_t value) {
    const unsigned shift = shift_of(value);
    return shift > kLargestShift ? kBuckets - 1 : (std::size_t{shift} << kBits) + (value >> shift);
  }
  static double middle_of(std::size_t index) {
    const std::size_t shift = index < (2U << kBits) ? 0 : (index >> kBits) - 1;
    const std::size_t low = (index - (shift << kBits)) << shift;
    return static_cast<double>(low) + (static_cast<double>(std::size_t{1} << shift) - 1) / 2;
  }

  std::array<std::uint32_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace keel::bench
