// A scheduler that counts who comes to take a lock of one rank.
#pragma once

#include <cstdint>

#include "keel/base/lock_rank.h"
#include "support/sim_scheduler.h"

namespace keel_test {

class LockCounts final : public keel::SimScheduler {
 public:
  using SimScheduler::SimScheduler;
  void point(keel::ThreadPoint what, std::uint32_t detail) override {
    if (what == keel::ThreadPoint::kLock && detail == static_cast<std::uint32_t>(rank)) {
      ++count;
    }
    SimScheduler::point(what, detail);
  }
  keel::LockRank rank = keel::LockRank::kLeaf;
  unsigned count = 0;
};

}  // namespace keel_test
