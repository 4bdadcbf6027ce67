// What the bytes of a log say of how much of it was stable: the rules of FORMAT.md, "The end of the
// log", once more, by one plain loop, for judging what the reader makes of a log with rot in it.
#pragma once

#include <cstdint>

#include "support/sim_image.h"

namespace keel_test {

struct LogEvidence {
  bool readable = false;  // a superblock and a state slot are whole
  std::uint64_t stable =
      0;  // LSN that the state or a whole record at or beyond the end vouches for
};

// `end`: the LSN at which the chain of checkpoints breaks off.
[[nodiscard]] LogEvidence evidence_beyond(const keel::SimContent& image, std::uint64_t end);

}  // namespace keel_test
