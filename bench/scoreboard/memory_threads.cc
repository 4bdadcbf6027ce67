// memory.threads.*: do threads that have nothing to do with each other stand in each other's way?
//
// Each thread frees its own buffers, 256 behind, without touching any (memory/threads.cc).
//
//   2      rate of two threads over that of one (at least 1.8x)
//   4, 8   rate of so many over that of two, on however many CPUs there are: no collapse, which is
//          taken to mean at least 0.8x
//   rate   of two threads

#include "scoreboard/memory_peers.h"

namespace keel::bench {
namespace {

const FamilyRegistration kThreads{
    {{figure_row("memory.threads.2", "over_2", "x", Goal::kOursAtLeast, 1.8,
                 "two threads with their own buffers, 256 behind, untouched: rate over one's"),
      figure_row("memory.threads.4", "over_4", "x", Goal::kOursAtLeast, 0.8,
                 "four threads: rate over two's"),
      figure_row("memory.threads.8", "over_8", "x", Goal::kOursAtLeast, 0.8,
                 "eight threads: rate over two's")},
     [](const Setting& setting) -> Result<Study> {
       Study study = driver_study(setting, {"threads"}, PeerSet::kUsual, false);
       study.rounds = 2;
       study.ours_once = true;
       return study;
     }}};

}  // namespace
}  // namespace keel::bench
