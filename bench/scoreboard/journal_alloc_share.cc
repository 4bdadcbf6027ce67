// journal.alloc_share: which share of the time of committing is memory?
//
// One thread commits objects of 64 KiB, each under a new key (W3), with snapshots from a pool that
// is nine tenths taken and has no free run above 4 pages, under perf (lock_share.sh). Of the
// samples with a commit or a free in their stack, those with an allocation or a free (at most 5 %).
// A log of 24 MiB keeps up to 8 MiB of snapshots at a time, a third of what the pool has left;
// .small is with one of 8 MiB. .rate is of commits, without perf, beside the same with
// kRetryMayfail for the snapshots, which tries for contiguous memory first.

#include "scoreboard/time_shares.h"

namespace keel::bench {
namespace {

constexpr const char* kMemory = "keel::Pool::kv(malloc|free)";
constexpr const char* kCommits = "KeelEngine::commit|keel::Pool::kv(malloc|free)";
constexpr const char* kSetup = "fragment|KeelEngine::open|make_pool";

Result<Figures> share(const Setting& setting, const std::string& log_mib) {
  return time_shares(setting, {"--within", kCommits, "--without", kSetup, "--share", kMemory},
                     {sibling_program("journal_driver"), "--engine", "keel-fragmented",
                      "--workload", "w3", "--bytes", "65536", "--seconds",
                      setting.smoke ? "0.3" : "5", "--log-mib", log_mib, "--dir", setting.dir});
}

Result<Figures> shares(const Setting& setting) {
  Figures figures;
  for (const auto& [name, log_mib] : {std::pair{"share", "24"}, std::pair{"small", "8"}}) {
    const auto seen = share(setting, log_mib);
    if (!seen) {
      return seen;
    }
    if (const auto at = seen->find("share"); at != seen->end()) {
      figures[name] = at->second;
    }
  }
  return figures;
}

Result<Study> prepare(const Setting& setting) {
  Study study;
  study.rounds = 2;
  study.ours = [setting] { return shares(setting); };
  return study;
}

Result<Figures> rate(const std::string& dir, const std::string& seconds, const char* engine) {
  auto figures = run_for_figures({
      {sibling_program("journal_driver"), "--engine", engine, "--workload", "w3", "--bytes",
       "65536", "--seconds", seconds, "--log-mib", "24", "--dir", dir, "--json"},
  });
  return figures ? Result<Figures>(Figures{{"rate", figures->at("rate_per_s") / 1e3}}) : figures;
}

Result<Study> prepare_rate(const Setting& setting) {
  const std::string seconds = setting.smoke ? "0.3" : "3";
  Study study;
  study.ours = [dir = setting.dir, seconds] { return rate(dir, seconds, "keel-fragmented"); };
  study.peers.push_back({"retry_mayfail", [dir = setting.dir, seconds] {
                           return rate(dir, seconds, "keel-retrying");
                         }});
  return study;
}

const FamilyRegistration kRate{
    {{figure_row("journal.alloc_share.rate", "rate", "k/s", Goal::kReported, 0,
                 "64 KiB commits, fragmented pool, beside trying for contiguous memory")},
     prepare_rate}};

const FamilyRegistration kShare{
    {{figure_row("journal.alloc_share", "share", "x", Goal::kOursAtMost, 0.05,
                 "share of allocation and free in the CPU time of 64 KiB commits, fragmented pool"),
      figure_row("journal.alloc_share.small", "small", "x", Goal::kOursAtMost, 0.05,
                 "the same with fewer snapshots at a time")},
     prepare}};

}  // namespace
}  // namespace keel::bench
