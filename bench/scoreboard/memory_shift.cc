// memory.shift.*: how much memory stays when the sizes that a program uses change?
//
// At most 512 MiB live, random replacement of four times that in each of four phases, sizes
// log-uniform over whole pages (memory/shift.cc). keel runs with the settings that it has in
// memory.fifo.*: a peer that is tuned for this row loses that one.
//
//   small, large, back, mixed   resident over live at the end of the phases 4K-64K, 256K-4M, 4K-64K
//                               and 4K-4M (at most 1.10 in each)
//   idle                        after all is freed and 12 s: resident over the peak (at most 5 %).
//                               Peers wait only with --full
//
// One round: the figures are of memory, and hardly move.

#include "scoreboard/memory_peers.h"

namespace keel::bench {
namespace {

Result<Study> prepare(const Setting& setting) {
  Study study = driver_study(setting, {"shift", "--idle", setting.full ? "12" : "0"},
                             PeerSet::kMemory, false);
  std::vector<std::string> ours{"shift", "--idle", "12", "--backend", "keel"};
  if (setting.smoke) {
    ours.emplace_back("--smoke");
  }
  study.ours = [ours] { return run_driver(ours); };
  study.rounds = 1;
  study.ours_once = true;
  return study;
}

RowDefinition row(const char* name, const char* figure, double target, const char* question) {
  return figure_row(name, figure, "x", Goal::kOursAtMost, target, question);
}

const FamilyRegistration kShift{
    {{row("memory.shift.1_small", "small", 1.10, "resident over live after 4K-64K"),
      row("memory.shift.2_large", "large", 1.10, "then after 256K-4M"),
      row("memory.shift.3_back", "back", 1.10, "then after 4K-64K again"),
      row("memory.shift.4_mixed", "mixed", 1.10, "then after 4K-4M"),
      row("memory.shift.5_idle", "idle", 0.05, "all freed and 12 s later: resident over the peak")},
     prepare}};

}  // namespace
}  // namespace keel::bench
