// The engines that ours is measured against in the journal's workloads, and the driver of all.
#pragma once

#include <string>
#include <vector>

#include "scoreboard/family.h"

namespace keel::bench {

// One run of journal_driver. What it gives has `suffix` behind its name, so that a sample may be
// made of several runs.
struct JournalRun {
  std::vector<std::string> arguments;
  std::string suffix = "";
};

inline constexpr const char* kIdeal = "ideal";

// "--seconds" and how long: short, since a row takes many runs.
[[nodiscard]] std::vector<std::string> run_seconds(const Setting& setting);

// The runs on keel against the same on each of `engines` and, as a limit, on the ideal log. A smoke
// run takes the first of the engines alone. An engine that is not in the build is dropped with a
// line that says so.
[[nodiscard]] Study journal_study(const Setting& setting, const std::vector<JournalRun>& runs,
                                  std::vector<std::string> engines);

// One run, with the further figures that follow from those of the driver.
[[nodiscard]] Result<Figures> run_journal_driver(const Setting& setting, const std::string& engine,
                                                 const JournalRun& run);

}  // namespace keel::bench
