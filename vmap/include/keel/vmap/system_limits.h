// What the machine and the kernel allow, read from /proc through os().
#pragma once

#include <cstdint>

#include "keel/base/units.h"

namespace keel {

// vm.max_map_count: mappings that a process may have. The kernel's default if it cannot be read.
[[nodiscard]] std::uint64_t max_map_count();

// Memory of the machine (not of a control group). 1 GiB if it cannot be read.
[[nodiscard]] Bytes machine_memory();

}  // namespace keel
