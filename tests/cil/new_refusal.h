// NewRefusal: while it lives, operator new of this program finds no memory, on any thread: once, or
// for good.
#pragma once

#include <cstdint>

namespace keel_test {

class NewRefusal {
 public:
  // The n-th request from now is refused (0 is the next one), and with `for_good` all after it.
  explicit NewRefusal(std::int64_t nth, bool for_good = false);
  ~NewRefusal();
  NewRefusal(const NewRefusal&) = delete;
  NewRefusal& operator=(const NewRefusal&) = delete;

  // Takes one of those that are counted, for an allocator that is not operator new: true if this
  // is to be refused.
  [[nodiscard]] static bool refuses();
  [[nodiscard]] static std::uint64_t refused();
};

}  // namespace keel_test
