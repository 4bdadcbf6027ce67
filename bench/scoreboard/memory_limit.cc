// memory.limit.*: what can be had at the limit when half of the memory is free, but in pieces?
//
// A limit of 512 MiB (a pool's capacity; RLIMIT_DATA for a malloc), filled with 1 MiB buffers,
// every
// second one freed, then 4 MiB requests (memory/limit.cc).
//
//   fit       share of the 4 MiB buffers that the freed bytes could hold which were got (all)
//   call_p99  CPU time of these calls (at most 1 ms)
//   refuse_nowait, refuse_kernel   99 % of the refusals, by a request that may not wait, and by a
//             plain one after a first that found nothing (at most 1 us)

#include "scoreboard/memory_peers.h"

namespace keel::bench {
namespace {

const FamilyRegistration kLimit{
    {{figure_row("memory.limit.fit", "fit", "x", Goal::kOursAtLeast, 1.0,
                 "4 MiB buffers got at the limit, of those that the freed 1 MiB ones could hold"),
      figure_row("memory.limit.call_p99", "call_p99", "us", Goal::kOursAtMost, 1000,
                 "CPU time of these calls, 99 %"),
      figure_row("memory.limit.refuse_nowait", "refuse_nowait", "ns", Goal::kOursAtMost, 1000,
                 "refusal of a request that may not wait, 99 %"),
      figure_row("memory.limit.refuse_kernel", "refuse_kernel", "ns", Goal::kOursAtMost, 1000,
                 "refusal of a plain request after one that found nothing, 99 %")},
     [](const Setting& setting) -> Result<Study> {
       Study study = driver_study(setting, {"limit"}, PeerSet::kUsual, false);
       study.rounds = setting.smoke ? 1 : 2;
       study.ours_once = true;
       return study;
     }}};

}  // namespace
}  // namespace keel::bench
