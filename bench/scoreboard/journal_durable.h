// The families of durable commits, W1 and W2: what they are run on.
#pragma once

#include <string>

#include "scoreboard/journal_peers.h"

namespace keel::bench {

// `workload` with so many threads, against stores as people run them. With --full the recycled log
// of RocksDB is shown as well, as a limit: it is no setting that is run in earnest.
[[nodiscard]] inline Study durable_study(const Setting& setting, const std::string& workload,
                                         const std::string& threads) {
  std::vector<std::string> arguments{"--workload", workload, "--threads", threads};
  for (const std::string& argument : run_seconds(setting)) {
    arguments.push_back(argument);
  }
  const JournalRun run{arguments};
  Study study = journal_study(
      setting, {run}, {"rocksdb-log", "rocksdb-put", "sqlite-full", "wt-sync", "lmdb-sync"});
  if (setting.full && !setting.smoke) {
    study.peers.push_back({"rocksdb-logrec",
                           [=] { return run_journal_driver(setting, "rocksdb-logrec", run); },
                           true});
  }
  return study;
}

}  // namespace keel::bench
