// memory.fifo.*: what does it cost to hand large buffers from one thread to another?
//
// A producer (CPU 0) allocates and writes 64 B into each page; a consumer (CPU 1) frees 256 buffers
// behind. 200,000 buffers after a warm-up of 20,000; see memory/fifo.cc.
//
//   pow2  sizes uniform over 4 KiB, 8 KiB, ... 1 MiB
//   any   sizes uniform over all multiples of 4 KiB up to 1 MiB
//
// Each figure is held against the best peer for that figure, whichever peer and setting that is:
//   rate                 thousand buffers a second (pow2: at least 1.6x; any: at least 1.2x)
//   alloc_p50/p99/p999   ns of the allocating call (at most 1/3, 1/2, 1/5)
//   alloc_free           median of the allocating call + median of the freeing call (at most 1/4)
//   faults               page faults a buffer after the warm-up (none: less than one in 10,000,
// since
//                        the driver's own code and stacks may take a few)
//   resident             peak Pss of the process over the peak of what was asked for (at most 1.2)

#include "scoreboard/memory_peers.h"

namespace keel::bench {
namespace {

Result<Study> prepare_pow2(const Setting& setting) {
  return driver_study(setting, {"fifo"}, PeerSet::kUsual, true);
}

Result<Study> prepare_any(const Setting& setting) {
  return driver_study(setting, {"fifo", "--any"}, PeerSet::kUsual, true);
}

const FamilyRegistration kPow2{
    {{figure_row("memory.fifo.pow2.rate", "rate", "k/s", Goal::kRatioAtLeast, 1.6,
                 "buffers of 4 KiB to 1 MiB, powers of two, freed 256 behind on another CPU"),
      figure_row("memory.fifo.pow2.alloc_p50", "alloc_p50", "ns", Goal::kRatioAtMost, 1.0 / 3,
                 "the allocating call, median"),
      figure_row("memory.fifo.pow2.alloc_p99", "alloc_p99", "ns", Goal::kRatioAtMost, 1.0 / 2,
                 "the allocating call, 99 % of the calls"),
      figure_row("memory.fifo.pow2.alloc_p999", "alloc_p999", "ns", Goal::kRatioAtMost, 1.0 / 5,
                 "the allocating call, 99.9 % of the calls"),
      figure_row("memory.fifo.pow2.free_p50", "free_p50", "ns", Goal::kReported, 0,
                 "the freeing call, median"),
      figure_row("memory.fifo.pow2.ready_p999", "ready_p999", "ns", Goal::kReported, 0,
                 "allocating and writing, 99.9 % of the buffers"),
      figure_row("memory.fifo.pow2.faults", "faults", "/op", Goal::kOursAtMost, 0.0001,
                 "page faults a buffer after the warm-up"),
      figure_row("memory.fifo.pow2.resident", "resident_over_live", "x", Goal::kOursAtMost, 1.2,
                 "peak resident memory over what is live")},
     prepare_pow2}};

const FamilyRegistration kAny{
    {{figure_row("memory.fifo.any.rate", "rate", "k/s", Goal::kRatioAtLeast, 1.2,
                 "buffers of any multiple of 4 KiB up to 1 MiB, freed 256 behind on another CPU"),
      figure_row("memory.fifo.any.alloc_free", "alloc_free", "ns", Goal::kRatioAtMost, 1.0 / 4,
                 "the allocating call and the freeing call, medians, together"),
      figure_row("memory.fifo.any.alloc_p999", "alloc_p999", "ns", Goal::kReported, 0,
                 "the allocating call, 99.9 % of the calls"),
      figure_row("memory.fifo.any.ready_p999", "ready_p999", "ns", Goal::kReported, 0,
                 "allocating and writing, 99.9 % of the buffers"),
      figure_row("memory.fifo.any.resident", "resident_over_live", "x", Goal::kOursAtMost, 1.2,
                 "peak resident memory over what is live")},
     prepare_any}};

}  // namespace
}  // namespace keel::bench
