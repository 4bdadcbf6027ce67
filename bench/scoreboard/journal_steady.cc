// journal.steady.*: does a warm journal still ask the system for anything?
//
// See compare/steady.cc. For each commit of 4 KiB, by the committing thread; none is taken to mean
// less than one in 1,000, since a commit may meet the pushing of a checkpoint (ten a second, among
// 50,000 commits).
//
//   .misses            allocations that the CPU's cache did not serve (none)
//   .system_calls      by ptrace (none)
//   .faults            page faults (none)
//   .push_allocations  allocations between force() of 1,000 such commits and its return (0)

#include "scoreboard/driver.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kSkipped = 77;  // exit status of the program
constexpr double kNone = 0.001;

Result<Study> prepare(const Setting& setting) {
  const auto sample = [dir = setting.dir](const std::string& seconds) {
    return run_for_figures(
        {{sibling_program("journal_steady"), "--dir", dir, "--seconds", seconds}});
  };
  Study study;
  const auto probe = sample("0.05");
  if (!probe && probe.error().value == kSkipped) {
    study.skipped = "a process may not trace its child here";
    return study;
  }
  const std::string seconds = setting.smoke ? "0.05" : "2";
  study.ours = [sample, seconds] { return sample(seconds); };
  return study;
}

const FamilyRegistration kSteady{
    {{figure_row("journal.steady.misses", "misses", "/op", Goal::kOursAtMost, kNone,
                 "warm commits of 4 KiB: allocations that the CPU's cache did not serve"),
      figure_row("journal.steady.system_calls", "system_calls", "/op", Goal::kOursAtMost, kNone,
                 "warm commits of 4 KiB: system calls of the committing thread"),
      figure_row("journal.steady.faults", "faults", "/op", Goal::kOursAtMost, kNone,
                 "warm commits of 4 KiB: page faults of the committing thread"),
      figure_row("journal.steady.push_allocations", "push_allocations", "", Goal::kOursAtMost, 0,
                 "allocations while 1,000 commits are forced")},
     prepare}};

}  // namespace
}  // namespace keel::bench
