// Campaigns on real kernel paths. Each takes a range of seeds, and is to be had in slices: the sum
// of slices is the whole. What a machine does not give is missing, with its reason (tally.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally.h"

namespace keel_test {

struct RealCampaign {
  const char* name;
  const char* what;         // for --help
  std::uint64_t slice;      // seeds of the slice that every test run takes; 0: none
  std::uint64_t sanitized;  // the same under a sanitizer
  bool promises;            // a slice in which nothing had been promised has tried nothing
  Tally (*run)(std::uint64_t first, std::uint64_t count);
};

[[nodiscard]] const std::vector<RealCampaign>& campaigns();

// Power cuts: a writer on faultfs, moments before and after its writes and flushes, each cut in
// several ways.
Tally run_fuse(std::uint64_t first, std::uint64_t count);
// Faults of the disk: the k-th write or flush fails or is short, once or for good; lies, losses;
// the k-th read of a closed log flips a bit. A space with an end (of=).
Tally run_faults(std::uint64_t first, std::uint64_t count);
// SIGKILL of the writer at any moment, on the disk.
Tally run_kill(std::uint64_t first, std::uint64_t count);
// ext4 and XFS shut down under the writer.
Tally run_shutdown_ext4(std::uint64_t first, std::uint64_t count);
Tally run_shutdown_xfs(std::uint64_t first, std::uint64_t count);
// ext4 and XFS on a loop device on faultfs: power cuts, failing writes, a flush that fails once.
Tally run_loop(std::uint64_t first, std::uint64_t count);
// Full file systems.
Tally run_full(std::uint64_t first, std::uint64_t count);
// Limits of files, memory, mappings, descriptors and threads.
Tally run_limits(std::uint64_t first, std::uint64_t count);
// A control group at its limit of memory.
Tally run_memory(std::uint64_t first, std::uint64_t count);
// Hangs, which the watchdog reports, and which end.
Tally run_hangs(std::uint64_t first, std::uint64_t count);
// A virtual machine that is killed with a writer in it.
Tally run_qemu(std::uint64_t first, std::uint64_t count);

// "--only NAME --first SEED --count 1"
[[nodiscard]] std::string replay_of(const char* name, std::uint64_t seed);

}  // namespace keel_test
