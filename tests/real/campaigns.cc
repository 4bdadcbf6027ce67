#include "campaigns.h"

namespace keel_test {

const std::vector<Campaign>& campaigns() {
  static const std::vector<Campaign> all = {
      {"fuse", "power cuts of a FUSE file system, by the moment and the way", 2, 900, run_fuse},
      {"faults", "the k-th write or flush fails, lies or is lost", 34, 1649, run_faults},
      {"kill", "SIGKILL at any moment", 60, 100000, run_kill},
      {"shutdown", "ext4 and XFS shut down under the writer", 16, 10000, run_shutdown},
      {"loop", "the disk under ext4 and XFS fails or loses power", 12, 2000, run_loop},
      {"full", "full file systems", 4, 1000, run_full},
      {"limits", "limits of files, memory, mappings, descriptors, threads", 17, 1700, run_limits},
      {"memory", "a control group at its limit of memory", 4, 300, run_memory},
      {"hangs", "file systems and devices that hang, and the watchdog", 16, 1000, run_hangs},
  };
  return all;
}

std::string replay_of(const char* name, std::uint64_t seed) {
  return std::string("--only ") + name + " --first " + std::to_string(seed) + " --count 1";
}

}  // namespace keel_test
