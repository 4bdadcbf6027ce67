#include "keel/base/lock_rank.h"

#include <array>
#include <cstddef>

#include "keel/base/check.h"

namespace keel {
namespace {

constexpr std::size_t kMaxHeld = 48;

struct HeldLocks {
  std::array<LockRank, kMaxHeld> ranks{};
  std::size_t count = 0;
};

thread_local HeldLocks t_held;

}  // namespace

void lock_rank_acquire(LockRank rank) {
  HeldLocks& held = t_held;
  for (std::size_t i = 0; i < held.count; ++i) {
    KEEL_CHECK(held.ranks[i] < rank, "lock order: held rank, wanted rank",
               static_cast<std::uint64_t>(held.ranks[i]), static_cast<std::uint64_t>(rank));
  }
  KEEL_CHECK(held.count < kMaxHeld, "too many locks held", held.count);
  held.ranks[held.count++] = rank;
}

void lock_rank_release(LockRank rank) {
  HeldLocks& held = t_held;
  for (std::size_t i = held.count; i-- > 0;) {
    if (held.ranks[i] == rank) {
      for (std::size_t j = i + 1; j < held.count; ++j) {
        held.ranks[j - 1] = held.ranks[j];
      }
      --held.count;
      return;
    }
  }
  KEEL_CHECK(false, "release of a lock that is not held, rank", static_cast<std::uint64_t>(rank));
}

void lock_rank_may_reclaim() {
  const HeldLocks& held = t_held;
  KEEL_CHECK(held.count == 0, "an allocation that may reclaim, under a lock: its rank",
             static_cast<std::uint64_t>(held.ranks[0]));
}

}  // namespace keel
