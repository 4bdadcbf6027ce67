// The allocators that ours is measured against, and the driver that runs all of them.
#pragma once

#include <string>
#include <vector>

#include "scoreboard/family.h"

namespace keel::bench {

enum class PeerSet : std::uint8_t {
  kUsual,   // each at its defaults and at its best documented settings for large buffers
  kMemory,  // those and the settings that give memory back at any price in speed
};

// Runs memory_driver with these arguments. `peer_environment` may preload an allocator, then
// `expected` is the name to be found among the loaded objects. Errors: kSystem; the driver has said
// why on stderr.
[[nodiscard]] Result<Figures> run_driver(std::vector<std::string> arguments,
                                         std::vector<std::string> peer_environment = {},
                                         const std::string& expected = "");

// The driver's workload on keel against every peer that is installed; what is missing is said on
// stderr, once. With `static_pool` the limit comes last. A smoke run takes the defaults alone.
[[nodiscard]] Study driver_study(const Setting& setting, std::vector<std::string> arguments,
                                 PeerSet set, bool static_pool);

}  // namespace keel::bench
