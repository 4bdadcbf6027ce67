// memory.vmlimit: does mapping go on when far more has been mapped than the kernel allows at once?
//
// 10 x vm.max_map_count mappings are made and dropped one after the other, and nobody calls
// purge(): how many succeed.

#include <memory>

#include "keel/vmap/system_limits.h"
#include "scoreboard/family.h"
#include "support/store_rig.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kTimes = 10;

Result<Study> prepare(const Setting& setting) {
  const std::uint64_t wanted = setting.smoke ? 10'000 : kTimes * max_map_count();
  Study study;
  study.rounds = 1;
  study.ours = [wanted]() -> Result<Figures> {
    const StoreRig rig = make_store_rig(std::size_t{4} << 20, {});
    const std::vector<Pfn> frames = scattered_frames(2, 1);
    std::uint64_t made = 0;
    for (std::uint64_t i = 0; i < wanted; ++i) {
      const auto start = rig.window->map(std::span(&frames[i % 2], 1));
      if (start.ok() && rig.window->unmap(*start)) {
        ++made;
      }
    }
    return Figures{{"made", static_cast<double>(made)}};
  };
  study.peers = {{"asked for", [wanted]() -> Result<Figures> {
                    return Figures{{"made", static_cast<double>(wanted)}};
                  }}};
  return study;
}

const FamilyRegistration kVmLimit{
    {{figure_row("memory.vmlimit", "made", "maps", Goal::kRatioAtLeast, 1.0,
                 "10 x vm.max_map_count mappings made and dropped without a purge by the caller")},
     prepare}};

}  // namespace
}  // namespace keel::bench
