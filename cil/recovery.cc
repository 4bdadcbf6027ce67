#include "keel/cil/recovery.h"

#include <algorithm>
#include <cstring>

namespace keel {

const char* to_string(LogEnd end) {
  switch (end) {
    case LogEnd::kClean: return "clean";
    case LogEnd::kTorn: return "torn";
    case LogEnd::kDamaged: return "damaged";
  }
  return "unknown";
}

std::string RecoveryReport::message() const {
  const auto text = [](auto position) { return std::to_string(position.value()); };
  std::string line = std::string(to_string(end)) + " end at LSN " + text(head) +
                     " after sequence " + text(last_sequence) + " (" + reason + ")";
  if (end == LogEnd::kTorn) {
    line += "; checkpoint " + text(first_missing) + " is incomplete and was not known to be stable";
  }
  line += "; stable up to LSN " + text(stable) + ", sequence " + text(stable_sequence) + "; " +
          std::to_string(in_flight) + " in flight beyond; " + std::to_string(checkpoints) +
          " checkpoints, " + std::to_string(items) + " items, " + text(bytes) + " bytes from LSN " +
          text(tail);
  if (end == LogEnd::kDamaged && !is_known_loss()) {
    line += "; what stands at LSN " + text(head) + " cannot be read; nothing is known to be lost";
  } else if (end == LogEnd::kDamaged) {
    line += "; lost for sure: what was stable from LSN " + text(head) + " to " + text(stable) +
            ", checkpoints " + text(first_missing) + " to " +
            text(std::max(stable_sequence, first_missing)) +
            " at least; newest seen: " + text(newest_sequence);
  }
  return line;
}

std::size_t RecoveredRegion::copy_to(void* place, std::size_t bytes) const {
  auto* to = static_cast<std::byte*>(place);
  const std::size_t from_bulk = std::min(bytes, bulk.size());
  if (from_bulk != 0) {
    std::memcpy(to, bulk.data(), from_bulk);
  }
  const std::size_t from_rest = std::min(bytes - from_bulk, rest.size());
  if (from_rest != 0) {
    std::memcpy(to + from_bulk, rest.data(), from_rest);
  }
  return from_bulk + from_rest;
}

}  // namespace keel
