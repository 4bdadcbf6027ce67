// What the machine and the kernel allow, from /proc, through os(), and limits.
#pragma once

#include <cstdint>

#include "keel/base/units.h"

namespace keel {

// vm.max_map_count: mappings that a process may have. The kernel's default if it cannot be read.
[[nodiscard]] std::uint64_t max_map_count();

// Memory of the machine (not of a control group). 1 GiB if it cannot be read.
[[nodiscard]] Bytes machine_memory();

// RLIMIT_FSIZE: how large this process may make a file, one in memory as well.
[[nodiscard]] Bytes max_file_bytes();

}  // namespace keel
