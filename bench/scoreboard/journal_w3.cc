// journal.W3.*: how many commits a second that do not wait, each of a new key?
//
// A thread forces every 100 ms, and a last force is in the time. 1 and 2 threads; 256 B (10x the
// best store as people run it), 4 KiB (4x) and 64 KiB (0.9x the ideal log). Ours gives its log back
// as it goes: an item leaves it once it is stable. The stores' logs grow, and the ideal one has no
// tail at all. One that a crash may leave unreadable (LMDB without syncs) does not count.

#include "scoreboard/journal_peers.h"

namespace keel::bench {
namespace {

Study async_study(const Setting& setting, const std::string& bytes) {
  std::vector<JournalRun> runs;
  for (const char* threads : {"1", "2"}) {
    std::vector<std::string> arguments{"--workload", "w3", "--threads", threads, "--bytes", bytes};
    for (const std::string& argument : run_seconds(setting)) {
      arguments.push_back(argument);
    }
    runs.push_back({arguments, std::string(".") + threads});
  }
  Study study = journal_study(setting, runs, {"rocksdb-log", "rocksdb-put", "wt-async"});
  study.ours = [ours = study.ours]() -> Result<Figures> {
    auto figures = ours();
    if (figures) {
      figures->insert({"scaling", (*figures)["k_per_s.2"] / (*figures)["k_per_s.1"]});
    }
    return figures;
  };
  return study;
}

const FamilyRegistration kSmall{
    {{figure_row("journal.W3.256.1", "k_per_s.1", "k/s", Goal::kRatioAtLeast, 10.0,
                 "commits of 256 B that do not wait, one thread"),
      figure_row("journal.W3.256.2", "k_per_s.2", "k/s", Goal::kRatioAtLeast, 10.0,
                 "commits of 256 B that do not wait, two threads"),
      figure_row("journal.W3.256.scaling", "scaling", "x", Goal::kOursAtLeast, 1.2,
                 "the rate of two threads over that of one")},
     [](const Setting& setting) -> Result<Study> { return async_study(setting, "256"); }}};

const FamilyRegistration kPage{
    {{figure_row("journal.W3.4k.1", "k_per_s.1", "k/s", Goal::kRatioAtLeast, 4.0,
                 "commits of 4 KiB that do not wait, one thread"),
      figure_row("journal.W3.4k.2", "k_per_s.2", "k/s", Goal::kRatioAtLeast, 4.0,
                 "commits of 4 KiB that do not wait, two threads")},
     [](const Setting& setting) -> Result<Study> { return async_study(setting, "4096"); }}};

const FamilyRegistration kLarge{
    {{row_against(kIdeal,
                  figure_row("journal.W3.64k.1", "payload_mb_per_s.1", "MB/s", Goal::kRatioAtLeast,
                             0.9, "commits of 64 KiB that do not wait, one thread")),
      row_against(kIdeal,
                  figure_row("journal.W3.64k.2", "payload_mb_per_s.2", "MB/s", Goal::kRatioAtLeast,
                             0.9, "commits of 64 KiB that do not wait, two threads"))},
     [](const Setting& setting) -> Result<Study> { return async_study(setting, "65536"); }}};

}  // namespace
}  // namespace keel::bench
