// memory.burst.*: what does the first request after a pause pay?
//
// memory.fifo.pow2, with all buffers freed and both threads asleep for 200 ms after every 2,048
// buffers; ten rounds (memory/fifo.cc). An allocator that gives memory back while the program idles
// pays for it here.
//
//   p999     ns to allocate and write a buffer, 99.9 % of them, the first round's among them, as
//            with a program that starts (at most 1/3 of the best peer's)
//   steady   the same without the first round
//   faults   page faults a buffer after the first round (none: less than one in 10,000, since the
//            driver's own code and stacks may take a few)

#include "scoreboard/memory_peers.h"

namespace keel::bench {
namespace {

const FamilyRegistration kBurst{
    {{figure_row("memory.burst.p999", "ready_p999", "ns", Goal::kRatioAtMost, 1.0 / 3,
                 "allocating and writing, 200 ms idle after every 2,048 buffers: 99.9 %"),
      figure_row("memory.burst.steady", "steady_ready_p999", "ns", Goal::kReported, 0,
                 "the same after the first round"),
      figure_row("memory.burst.faults", "faults", "/op", Goal::kOursAtMost, 0.0001,
                 "page faults a buffer after the first round"),
      figure_row("memory.burst.resident", "resident_over_live", "x", Goal::kReported, 0,
                 "peak resident memory over what is live")},
     [](const Setting& setting) -> Result<Study> {
       Study study = driver_study(setting, {"burst"}, PeerSet::kUsual, true);
       study.rounds = 2;
       return study;
     }}};

}  // namespace
}  // namespace keel::bench
