// AgainNeeds: how much log space it takes to log again what the checkpoints in the log hold of
// items without a home: the most that any one of them needs.
//
// What holds the tail is logged again a checkpoint at a time, and frees space only when all of it
// is: so that much must be free when a checkpoint becomes the oldest.
// I1 most() is never less than the need of a checkpoint at or beyond the tail.
// I2 It is the need of one that is there, or was no more than a sixteenth of the log ago. So what
//    is set aside for one that has left the log is granted again soon.
// Constant time and memory: stretches of the log instead of checkpoints.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "keel/base/units.h"

namespace keel {

class AgainNeeds {
 public:
  explicit AgainNeeds(std::uint64_t log_bytes) : stretch_bytes_(log_bytes / kParts) {}

  // Of the checkpoint at `start`, beyond all before it. `joined`: its items hold the tail where
  // those of the one before it do, so both are needed at once.
  void add(Lsn start, std::uint64_t need_bytes, bool joined);
  // The tail is there.
  void tail_moved(Lsn tail);
  [[nodiscard]] std::uint64_t most() const;
  // What a further checkpoint may be needed with: of the newest and those that it joined, if it
  // did.
  [[nodiscard]] std::uint64_t joined() const { return count_ != 0 && joined_ ? newest_ : 0; }

 private:
  static constexpr std::size_t kParts = 16;
  // Stretches begin a sixteenth of the log apart, and the tail may stand within the oldest.
  static constexpr std::size_t kMostStretches = kParts + 2;

  struct Stretch {
    Lsn first{};  // of the checkpoints in it
    Lsn last{};
    std::uint64_t most = 0;
  };

  const std::uint64_t stretch_bytes_;
  std::array<Stretch, kMostStretches> stretches_{};  // oldest first
  std::size_t count_ = 0;
  std::uint64_t newest_ = 0;  // need of the newest checkpoint, and of those that it joined
  bool joined_ = false;       // it did
};

}  // namespace keel
