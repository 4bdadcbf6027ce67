// How kNoFail waits for memory: in sleeps that grow, and once a second it is time to say so.
#pragma once

#include <algorithm>
#include <cstdint>

#include "keel/base/os.h"

namespace keel {

constexpr std::uint64_t kMessageIntervalNs = 1'000'000'000;

class Patience {
 public:
  void sleep() {
    os().sleep_ns(sleep_ns_);
    sleep_ns_ = std::min(sleep_ns_ * 2, kLongestSleepNs);
  }

  // True once in an interval.
  [[nodiscard]] bool is_message_due() {
    const std::uint64_t now_ns = os().monotonic_ns();
    if (now_ns < next_message_ns_) {
      return false;
    }
    next_message_ns_ = now_ns + kMessageIntervalNs;
    return true;
  }

 private:
  static constexpr std::uint64_t kFirstSleepNs = 1'000'000;
  static constexpr std::uint64_t kLongestSleepNs = 50'000'000;

  std::uint64_t sleep_ns_ = kFirstSleepNs;
  std::uint64_t next_message_ns_ = os().monotonic_ns() + kMessageIntervalNs;
};

}  // namespace keel
