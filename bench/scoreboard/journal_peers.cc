#include "scoreboard/journal_peers.h"

#include "scoreboard/driver.h"

namespace keel::bench {
namespace {

Result<Figures> sample(const Setting& setting, const std::string& engine,
                       const std::vector<JournalRun>& runs) {
  Figures all;
  for (const JournalRun& run : runs) {
    const auto figures = run_journal_driver(setting, engine, run);
    if (!figures) {
      return figures.error();
    }
    for (const auto& [name, value] : *figures) {
      all[name + run.suffix] = value;
    }
  }
  return all;
}

}  // namespace

std::vector<std::string> run_seconds(const Setting& setting) {
  return {"--seconds", setting.smoke ? "0.03" : setting.full ? "2.5" : "1"};
}

Result<Figures> run_journal_driver(const Setting& setting, const std::string& engine,
                                   const JournalRun& run) {
  std::vector<std::string> arguments{
      sibling_program("journal_driver"), "--json", "--dir", setting.dir, "--engine", engine};
  arguments.insert(arguments.end(), run.arguments.begin(), run.arguments.end());
  auto figures = run_for_figures({std::move(arguments)});
  if (!figures) {
    return figures;
  }
  figures->insert({"k_per_s", (*figures)["rate_per_s"] / 1e3});
  figures->insert({"disk_mb", (*figures)["disk_bytes"] / 1e6});
  return figures;
}

Study journal_study(const Setting& setting, const std::vector<JournalRun>& runs,
                    std::vector<std::string> engines) {
  Study study;
  study.rounds = 2;
  study.ours_once = setting.smoke;
  study.ours = [=] { return sample(setting, "keel", runs); };
  if (setting.smoke && engines.size() > 1) {
    engines.resize(1);
  }
  for (const std::string& engine : engines) {
    study.peers.push_back({engine, [=] { return sample(setting, engine, runs); }});
  }
  study.peers.push_back({kIdeal, [=] { return sample(setting, kIdeal, runs); }, true});
  return study;
}

}  // namespace keel::bench
