// Seconds of a piece of work, and what keeps the compiler from leaving it out.
#pragma once

#include <cstdint>

#include "keel/base/os.h"

namespace keel::bench {

class Stopwatch {
 public:
  Stopwatch() : start_ns_(os().monotonic_ns()) {}
  [[nodiscard]] double seconds() const {
    return static_cast<double>(os().monotonic_ns() - start_ns_) * 1e-9;
  }

 private:
  std::uint64_t start_ns_;
};

// Everything in memory counts as read and written here.
inline void clobber_memory() { asm volatile("" : : : "memory"); }

// The next number of a xorshift generator; `state` is not 0.
inline std::uint64_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace keel::bench
