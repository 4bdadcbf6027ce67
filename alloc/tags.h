// Limits on what single owners may hold.
//
// Owners without a limit cost nothing here: what they hold is counted from the frames' records when
// somebody asks. While any owner has a limit, allocations go past the fast path.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class TagLimits {
 public:
  static constexpr unsigned kMost = 64;
  static constexpr unsigned kUnlimited = kMost;

  // `owner` must be static. A limit of 0 forbids new memory to it. Errors: kNoMemory if kMost
  // owners have limits already.
  [[nodiscard]] Status set(const char* owner, Bytes limit) KEEL_EXCLUDES(lock_);
  // kUnlimited if the owner has none; one load while nobody has one.
  [[nodiscard]] unsigned find(const char* owner) const {
    const unsigned count = count_.load(std::memory_order_acquire);  // Pairs with set's release.
    return count == 0 ? kUnlimited : find_among(count, owner);
  }
  // False if `bytes` more would pass the limit; then nothing has changed.
  [[nodiscard]] bool charge(unsigned tag, std::uint64_t bytes);
  void uncharge(unsigned tag, std::uint64_t bytes);
  // Both of a tag that find() gave; out of date when they return.
  [[nodiscard]] Bytes limit(unsigned tag) const {
    return Bytes(tags_[tag].limit.load(std::memory_order_relaxed));  // A number only.
  }
  [[nodiscard]] Bytes held(unsigned tag) const {
    return Bytes(tags_[tag].held.load(std::memory_order_relaxed));  // Same.
  }

 private:
  struct Tag {
    const char* owner = nullptr;
    std::atomic<std::uint64_t> limit{0};
    std::atomic<std::uint64_t> held{0};
  };
  [[nodiscard]] unsigned find_among(unsigned count, const char* owner) const;

  Mutex lock_{LockRank::kLeaf};
  std::array<Tag, kMost> tags_;
  std::atomic<unsigned> count_{0};  // release: the tag before it is complete; pairs with acquire
};

}  // namespace keel
