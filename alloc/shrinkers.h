// The registered shrinkers of a pool.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "keel/alloc/shrinker.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/wait_word.h"

namespace keel {

struct ShrinkerCounts {
  std::uint64_t calls = 0;
  Bytes given{};
};

class Shrinkers {
 public:
  static constexpr unsigned kMost = 32;

  // Errors: kInvalidArgument if there are kMost already, or this one is.
  [[nodiscard]] Status add(Shrinker& shrinker) KEEL_EXCLUDES(lock_);
  // Waits for the scan that is under way, and for none that begins later.
  void remove(Shrinker& shrinker) KEEL_EXCLUDES(lock_);

  // Asks each in turn until `wanted` is there; returns what was given. Waits while another thread
  // is at it, or removes one. If it `shares` what another got, which may be enough for both, it
  // asks none then and returns nothing.
  std::optional<Bytes> scan(Bytes wanted, bool shares = true) KEEL_EXCLUDES(lock_);

  [[nodiscard]] ShrinkerCounts counts() const KEEL_EXCLUDES(lock_);
  [[nodiscard]] bool any() const KEEL_EXCLUDES(lock_);
  // True inside a scan by this thread, of whichever pool: scan() does nothing then.
  [[nodiscard]] static bool scanning_here();

 private:
  // Until a scan has ended, or a removal.
  void wait_for_change() KEEL_REQUIRES(lock_);

  mutable Mutex lock_{LockRank::kPoolReclaim};
  // No condition variable: it would wait, when a forked child's pool dies, for threads of the
  // parent's that wait here.
  WaitWord changed_;
  bool scanning_ KEEL_GUARDED_BY(lock_) = false;
  unsigned removing_ KEEL_GUARDED_BY(lock_) = 0;  // threads in remove() that wait for a scan to end
  std::array<Shrinker*, kMost> list_ KEEL_GUARDED_BY(lock_){};
  unsigned count_ KEEL_GUARDED_BY(lock_) = 0;
  ShrinkerCounts counts_ KEEL_GUARDED_BY(lock_){};
};

}  // namespace keel
