// journal.W4*: what does merging save when few objects change again and again?
//
// 1,000 objects of 4 KiB, 1,000,000 updates of whole objects chosen uniformly, one transaction
// each, one thread, then one force; W4b: a force every 100 ms besides. The process then ends
// without closing the journal.
//
//   journal.W4         MB that the log wrote (records whole, with headers and padding; the state
//                      slots, 4 KiB each, are not counted): at most 5
//   journal.W4.time    seconds for all of it, force included: at most 0.6
//   journal.W4.reopen  ms of Journal::open() after it: at most 50
//   journal.W4b.time   seconds: at most 0.8
//
// The limit merges by hand, in a table. The stores, which write every update, run with --full: each
// takes 4 GB and up to half a minute.

#include "scoreboard/journal_peers.h"

namespace keel::bench {
namespace {

Result<Study> hot_set_study(const Setting& setting, const std::string& workload) {
  const JournalRun run{{"--workload", workload, "--updates", setting.smoke ? "10000" : "1000000"}};
  std::vector<std::string> engines;
  if (setting.full && !setting.smoke) {
    engines = {"rocksdb-log", "rocksdb-put", "sqlite-normal", "wt-async"};
  }
  Study study = journal_study(setting, {run}, engines);
  study.rounds = setting.full ? 1 : 5;
  study.ours = [ours = study.ours]() -> Result<Figures> {
    auto figures = ours();
    if (figures) {
      figures->insert({"written_mb", (*figures)["log_bytes"] / 1e6});
    }
    return figures;
  };
  // Of a store, what its device wrote.
  for (FigurePeer& peer : study.peers) {
    peer.sample = [theirs = peer.sample]() -> Result<Figures> {
      auto figures = theirs();
      if (figures) {
        figures->insert({"written_mb", (*figures)["disk_mb"]});
      }
      return figures;
    };
  }
  return study;
}

const FamilyRegistration kOneForce{
    {{figure_row("journal.W4", "written_mb", "MB", Goal::kOursAtMost, 5.0,
                 "hot set, 1,000,000 updates, one force: bytes written"),
      figure_row("journal.W4.time", "seconds", "s", Goal::kOursAtMost, 0.6,
                 "hot set, 1,000,000 updates, one force: seconds for all of it"),
      figure_row("journal.W4.reopen", "reopen_ms", "ms", Goal::kOursAtMost, 50.0,
                 "opening what that has left, the process having ended without closing it")},
     [](const Setting& setting) { return hot_set_study(setting, "w4"); }}};

const FamilyRegistration kManyForces{
    {{figure_row("journal.W4b.time", "seconds", "s", Goal::kOursAtMost, 0.8,
                 "hot set, 1,000,000 updates, a force every 100 ms: seconds for all of it")},
     [](const Setting& setting) { return hot_set_study(setting, "w4b"); }}};

}  // namespace
}  // namespace keel::bench
