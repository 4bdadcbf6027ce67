// Shares of a program's time, as perf sees it (bench/lock_share.sh).
#pragma once

#include "scoreboard/driver.h"

namespace keel::bench {

// Runs `program` under perf; `options` are the script's, its recording goes to the setting's
// directory. Figures: locks, kernel, locks_and_kernel, share. None of them where perf may not
// record, which is said on stderr, and in a smoke run whose program was never seen at work: it may
// wait for its disk all along.
// Errors: run_for_figures()'s; kNotFound if nothing of what the options ask for was seen.
[[nodiscard]] Result<Figures> time_shares(const Setting& setting,
                                          const std::vector<std::string>& options,
                                          const std::vector<std::string>& program);

}  // namespace keel::bench
