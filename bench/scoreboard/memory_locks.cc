// memory.locks: which share of the time that allocating takes is spent in locks and in the kernel?
//
// Two threads allocate and free 64 KiB in a pool that is nine tenths taken and has no free run
// above 4 pages (memory/fragmented.cc), under perf for two seconds (bench/lock_share.sh). Samples
// with kvmalloc or kvfree in their stack count; a system call made by a lock is locks (at most 5 %
// for both together). An inlined spin lock is not seen as one: it counts as its caller.

#include <nlohmann/json.hpp>

#include "scoreboard/family.h"
#include "support/child.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kSkipped = 77;  // exit status of the script

Result<Figures> shares(const std::string& dir, const std::string& seconds) {
  const auto text = run_child(
      {{std::string(KEEL_BENCH_SOURCE_DIR) + "/lock_share.sh", dir,
        sibling_program("memory_driver"), "fragmented", "--backend", "keel", "--seconds", seconds},
       {},
       "",
       120});
  if (!text) {
    return text.error();
  }
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) {
    return Error{Errc::kSystem, 0, "lock_share.sh printed no JSON", 0};
  }
  return Figures{{"both", json.value("locks_and_kernel", 1.0)},
                 {"locks", json.value("locks", 1.0)},
                 {"kernel", json.value("kernel", 1.0)}};
}

Result<Study> prepare(const Setting& setting) {
  Study study;
  const auto probe = shares(setting.dir, "0.3");
  if (!probe && probe.error().value == kSkipped) {
    study.skipped = "perf may not record here; see above";
    return study;
  }
  const std::string seconds = setting.smoke ? "0.3" : "2";
  study.rounds = 2;
  study.ours = [dir = setting.dir, seconds] { return shares(dir, seconds); };
  return study;
}

const FamilyRegistration kLocks{
    {{figure_row("memory.locks", "both", "x", Goal::kOursAtMost, 0.05,
                 "share of allocating time in locks and in the kernel, fragmented, two threads"),
      figure_row("memory.locks.locks", "locks", "x", Goal::kReported, 0, "of it in locks"),
      figure_row("memory.locks.kernel", "kernel", "x", Goal::kReported, 0, "of it in the kernel")},
     prepare}};

}  // namespace
}  // namespace keel::bench
