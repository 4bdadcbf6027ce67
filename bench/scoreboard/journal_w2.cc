// journal.W2.*: how many durable commits of 4 KiB a second, by 1, 8 and 64 threads?
//
// Each thread commits its own object and waits until it is stable, again and again; against the
// best store as people run it (1.9x, 2.3x, 2x), and against the ideal log (.ideal, 0.9x).

#include "scoreboard/journal_durable.h"

namespace keel::bench {
namespace {

constexpr double kIdealShare = 0.9;

const FamilyRegistration kOne{
    {{figure_row("journal.W2.1", "k_per_s", "k/s", Goal::kRatioAtLeast, 1.9,
                 "durable commits of 4 KiB, one thread"),
      row_against(kIdeal, figure_row("journal.W2.1.ideal", "k_per_s", "k/s", Goal::kRatioAtLeast,
                                     kIdealShare, "the same, against the ideal log"))},
     [](const Setting& setting) -> Result<Study> { return durable_study(setting, "w2", "1"); }}};

const FamilyRegistration kEight{
    {{figure_row("journal.W2.8", "k_per_s", "k/s", Goal::kRatioAtLeast, 2.3,
                 "durable commits of 4 KiB, 8 threads"),
      row_against(kIdeal, figure_row("journal.W2.8.ideal", "k_per_s", "k/s", Goal::kRatioAtLeast,
                                     kIdealShare, "the same, against the ideal log"))},
     [](const Setting& setting) -> Result<Study> { return durable_study(setting, "w2", "8"); }}};

const FamilyRegistration kMany{
    {{figure_row("journal.W2.64", "k_per_s", "k/s", Goal::kRatioAtLeast, 2.0,
                 "durable commits of 4 KiB, 64 threads"),
      row_against(kIdeal, figure_row("journal.W2.64.ideal", "k_per_s", "k/s", Goal::kRatioAtLeast,
                                     kIdealShare, "the same, against the ideal log"))},
     [](const Setting& setting) -> Result<Study> { return durable_study(setting, "w2", "64"); }}};

}  // namespace
}  // namespace keel::bench
