// What the machine, the kernel's settings and the process's limits allow a pool.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "keel/base/units.h"
#include "output.h"

namespace keel::tools {

struct Machine {
  std::string kernel;
  unsigned cpus = 0;         // that there can be; each has caches of its own
  unsigned usable_cpus = 0;  // that this process may run on
  Bytes memory{};
  std::optional<Bytes> group_limit;  // of the control group, or one above it
  std::uint64_t max_map_count = 0;
  std::string shmem_huge_pages;    // "advise", ...; "unknown"
  std::optional<Bytes> lock_most;  // RLIMIT_MEMLOCK; none: no limit
  std::string locking;             // "works", or why a pool with lock_memory cannot be made
};

// Reads /proc and /sys, and makes a small pool to see whether it can be locked.
[[nodiscard]] Machine read_machine();

[[nodiscard]] Json to_json(const Machine& machine);
void print_text(const Machine& machine);

// The smallest limit on the memory of the process's control group and those above it; nothing if
// there is none, or none that can be read.
[[nodiscard]] std::optional<Bytes> control_group_limit();

}  // namespace keel::tools
