// journal.W1.*: how many durable commits of 256 B a second, by 1, 8 and 64 threads?
//
// Each thread commits its own object and waits until it is stable, again and again.
//
//   .1, .8, .64  commits a second against the best store as people run it (1.25x, 2x, 2x)
//   .ideal       the same against the ideal log (0.9x)
//   .p99         of a commit, against the ideal log's (at most 1.3x)
//   .fairness    commits of the slowest thread over those of the fastest (at least 0.5)

#include "scoreboard/journal_durable.h"

namespace keel::bench {
namespace {

constexpr double kIdealShare = 0.9;
constexpr double kIdealTail = 1.3;
constexpr double kFairness = 0.5;

const FamilyRegistration kOne{
    {{figure_row("journal.W1.1", "k_per_s", "k/s", Goal::kRatioAtLeast, 1.25,
                 "durable commits of 256 B, one thread"),
      row_against(kIdeal, figure_row("journal.W1.1.ideal", "k_per_s", "k/s", Goal::kRatioAtLeast,
                                     kIdealShare, "the same, against the ideal log")),
      row_against(kIdeal, figure_row("journal.W1.1.p99", "p99_us", "us", Goal::kRatioAtMost,
                                     kIdealTail, "of such a commit, 99 %"))},
     [](const Setting& setting) -> Result<Study> { return durable_study(setting, "w1", "1"); }}};

const FamilyRegistration kEight{
    {{figure_row("journal.W1.8", "k_per_s", "k/s", Goal::kRatioAtLeast, 2.0,
                 "durable commits of 256 B, 8 threads"),
      row_against(kIdeal, figure_row("journal.W1.8.ideal", "k_per_s", "k/s", Goal::kRatioAtLeast,
                                     kIdealShare, "the same, against the ideal log")),
      row_against(kIdeal, figure_row("journal.W1.8.p99", "p99_us", "us", Goal::kRatioAtMost,
                                     kIdealTail, "of such a commit, 99 %")),
      figure_row("journal.W1.8.fairness", "fairness", "x", Goal::kOursAtLeast, kFairness,
                 "commits of the slowest thread over the fastest's")},
     [](const Setting& setting) -> Result<Study> { return durable_study(setting, "w1", "8"); }}};

const FamilyRegistration kMany{
    {{figure_row("journal.W1.64", "k_per_s", "k/s", Goal::kRatioAtLeast, 2.0,
                 "durable commits of 256 B, 64 threads"),
      row_against(kIdeal, figure_row("journal.W1.64.ideal", "k_per_s", "k/s", Goal::kRatioAtLeast,
                                     kIdealShare, "the same, against the ideal log")),
      row_against(kIdeal, figure_row("journal.W1.64.p99", "p99_us", "us", Goal::kRatioAtMost,
                                     kIdealTail, "of such a commit, 99 %")),
      figure_row("journal.W1.64.fairness", "fairness", "x", Goal::kOursAtLeast, kFairness,
                 "commits of the slowest thread over the fastest's")},
     [](const Setting& setting) -> Result<Study> { return durable_study(setting, "w1", "64"); }}};

}  // namespace
}  // namespace keel::bench
