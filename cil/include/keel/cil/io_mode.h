// How a journal's writes reach the kernel.
#pragma once

#include <cstdint>

namespace keel {

enum class IoMode : std::uint8_t {
  kAuto,   // io_uring if the kernel gives it, else as kSync
  kUring,  // io_uring: several writes under way at a time; where it is not to be had, an error
  kSync,   // pwritev2: one write at a time
};

}  // namespace keel
