// Size classes: which cache a buffer of so many pages belongs to.
//
// One for each size to 16 pages, above that eight to a doubling, up to the largest block (4 MiB).
// Four to a doubling would hold twice as much too much: with sizes spread evenly, rounding up to a
// class costs 8 % of memory with four, 4 % with eight, and nothing to 64 KiB with either.
#pragma once

#include <bit>
#include <cstdint>

namespace keel {

inline constexpr unsigned kSizeClasses = 64;
inline constexpr std::uint8_t kNoClass = 0xff;
inline constexpr std::uint32_t kMaxClassPages = 1024;

// Smallest class whose buffers have at least `pages`, from 1 to kMaxClassPages.
[[nodiscard]] constexpr unsigned size_class_of(std::uint32_t pages) {
  if (pages <= 16) {
    return pages - 1;
  }
  const unsigned top = static_cast<unsigned>(std::bit_width(pages - 1)) - 1;  // 4 to 9
  return 16 + (top - 4) * 8 + ((pages - 1 - (1U << top)) >> (top - 3));
}

[[nodiscard]] constexpr std::uint32_t pages_of_class(unsigned size_class) {
  if (size_class < 16) {
    return size_class + 1;
  }
  const unsigned top = 4 + (size_class - 16) / 8;
  return (1U << top) + (((size_class - 16) % 8 + 1) << (top - 3));
}

// Up to here a buffer of a class has exactly its pages, whatever was asked for, and any one of them
// serves any request of the class. Above, a buffer has the pages that were asked for: its class is
// then the largest that it can serve in full, and requests look at what it holds.
inline constexpr std::uint32_t kMaxExactPages = 64;

// Class under which a buffer of so many pages is kept; kNoClass if it is not.
[[nodiscard]] constexpr std::uint8_t kept_class_of(std::uint64_t pages) {
  if (pages == 0 || pages > kMaxClassPages) {
    return kNoClass;
  }
  unsigned size_class = size_class_of(static_cast<std::uint32_t>(pages));
  if (pages_of_class(size_class) != pages) {
    --size_class;
    if (pages_of_class(size_class) <= kMaxExactPages) {
      return kNoClass;
    }
  }
  return static_cast<std::uint8_t>(size_class);
}

static_assert(kept_class_of(17) == kNoClass && kept_class_of(18) == size_class_of(18));
static_assert(kept_class_of(100) == size_class_of(96) && kept_class_of(66) == kNoClass);
static_assert(pages_of_class(kSizeClasses - 1) == kMaxClassPages);
static_assert(size_class_of(kMaxClassPages) == kSizeClasses - 1);
static_assert(size_class_of(17) == 16 && pages_of_class(16) == 18 && size_class_of(19) == 17);

}  // namespace keel
