// Units as types: pages, bytes, log positions and sequences cannot be mixed up.
//
// A Quantity is a length (it adds to itself); a Position is a point on one axis (two points have a
// distance, and a point moves by a quantity). Raw numbers go in through explicit constructors and
// come out through value().
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace keel {

template <class Tag>
class Quantity {
 public:
  constexpr Quantity() = default;
  explicit constexpr Quantity(std::uint64_t value) : value_(value) {}
  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }

  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity& operator+=(Quantity other) {
    value_ += other.value_;
    return *this;
  }
  constexpr Quantity& operator-=(Quantity other) {
    value_ -= other.value_;
    return *this;
  }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return a += b; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return a -= b; }

 private:
  std::uint64_t value_ = 0;
};

template <class Tag, class Distance>
class Position {
 public:
  constexpr Position() = default;
  explicit constexpr Position(std::uint64_t value) : value_(value) {}
  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }

  constexpr auto operator<=>(const Position&) const = default;
  constexpr Position& operator+=(Distance by) {
    value_ += by.value();
    return *this;
  }
  friend constexpr Position operator+(Position at, Distance by) { return at += by; }
  friend constexpr Position operator-(Position at, Distance by) {
    return Position(at.value_ - by.value());
  }
  friend constexpr Distance operator-(Position a, Position b) {
    return Distance(a.value_ - b.value_);
  }

 private:
  std::uint64_t value_ = 0;
};

using Bytes = Quantity<struct BytesTag>;
using Pages = Quantity<struct PagesTag>;

// Number of a 4 KiB frame in the frame store's memory object.
using Pfn = Position<struct PfnTag, Pages>;

// Byte position in the endless log. 64 bit, never wraps; the place on disk is LSN mod log size.
using Lsn = Position<struct LsnTag, Bytes>;

// Number of one checkpoint. The first is 1; 0 means "before the first".
using Sequence = Position<struct SequenceTag, Quantity<struct SequencesTag>>;

constexpr Sequence next(Sequence sequence) { return Sequence(sequence.value() + 1); }
constexpr Sequence previous(Sequence sequence) { return Sequence(sequence.value() - 1); }

inline constexpr std::size_t kPageShift = 12;
inline constexpr std::size_t kPageBytes = std::size_t{1} << kPageShift;

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t power_of_two) {
  return (value + power_of_two - 1) & ~(power_of_two - 1);
}
constexpr std::uint64_t round_down(std::uint64_t value, std::uint64_t power_of_two) {
  return value & ~(power_of_two - 1);
}
constexpr bool is_power_of_two(std::uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

// Pages that hold `bytes`, rounded up. Does not overflow for any argument.
constexpr Pages pages_for(std::size_t bytes) {
  return Pages((bytes >> kPageShift) + ((bytes & (kPageBytes - 1)) != 0 ? 1 : 0));
}
constexpr std::size_t bytes_of(Pages pages) { return pages.value() << kPageShift; }

}  // namespace keel
