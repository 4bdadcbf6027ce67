// memory.locks: which share of the time that allocating takes is spent in locks and in the kernel?
//
// Two threads allocate and free 64 KiB in a pool that is nine tenths taken and has no free run
// above 4 pages (memory/fragmented.cc), under perf for two seconds (bench/lock_share.sh). Samples
// with kvmalloc or kvfree in their stack count; a system call made by a lock is locks (at most 5 %
// for both together). An inlined spin lock is not seen as one: it counts as its caller.

#include "scoreboard/time_shares.h"

namespace keel::bench {
namespace {

Result<Study> prepare(const Setting& setting) {
  Study study;
  study.rounds = 2;
  study.ours = [setting] {
    return time_shares(setting, {},
                       {sibling_program("memory_driver"), "fragmented", "--backend", "keel",
                        "--seconds", setting.smoke ? "0.3" : "2"});
  };
  return study;
}

const FamilyRegistration kLocks{
    {{figure_row("memory.locks", "locks_and_kernel", "x", Goal::kOursAtMost, 0.05,
                 "share of allocating time in locks and in the kernel, fragmented, two threads"),
      figure_row("memory.locks.locks", "locks", "x", Goal::kReported, 0, "of it in locks"),
      figure_row("memory.locks.kernel", "kernel", "x", Goal::kReported, 0, "of it in the kernel")},
     prepare}};

}  // namespace
}  // namespace keel::bench
