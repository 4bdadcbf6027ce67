#include "campaigns.h"

namespace keel_test {

const std::vector<RealCampaign>& campaigns() {
  static const std::vector<RealCampaign> all = {
      {"fuse", "power cuts of a FUSE file system, by the moment and the way", 2, 1, true, run_fuse},
      {"faults", "the k-th write, flush or read fails, lies or is lost", 190, 57, true, run_faults},
      {"kill", "SIGKILL at any moment", 1'300, 8, true, run_kill},
      {"shutdown-ext4", "ext4 shut down under the writer", 30, 4, true, run_shutdown_ext4},
      {"shutdown-xfs", "XFS shut down under the writer", 30, 4, true, run_shutdown_xfs},
      {"loop", "the disk under ext4 and XFS fails or loses power", 12, 4, true, run_loop},
      {"full", "full file systems", 4, 2, true, run_full},
      {"limits", "limits of files, memory, mappings, descriptors, threads", 17, 17, false,
       run_limits},
      {"memory", "a control group at its limit of memory", 4, 1, false, run_memory},
      {"hangs", "file systems and devices that hang, and the watchdog", 8, 2, false, run_hangs},
      {"qemu", "a virtual machine killed with its file system and the writer in it", 0, 0, false,
       run_qemu},
  };
  return all;
}

std::string replay_of(const char* name, std::uint64_t seed) {
  return std::string("--only ") + name + " --first " + std::to_string(seed) + " --count 1";
}

}  // namespace keel_test
