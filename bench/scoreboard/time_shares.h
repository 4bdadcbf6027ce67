// Shares of a program's time, as perf sees it (bench/lock_share.sh).
#pragma once

#include "scoreboard/driver.h"

namespace keel::bench {

// Runs `program` under perf; `options` are the script's, its recording goes to `dir`. Figures:
// locks, kernel, locks_and_kernel, share. None of them where perf may not record, which is said on
// stderr, and where it took no sample: a program that waits for its disk all along is never seen at
// work. Errors: run_for_figures()'s.
[[nodiscard]] Result<Figures> time_shares(const std::string& dir,
                                          const std::vector<std::string>& options,
                                          const std::vector<std::string>& program);

}  // namespace keel::bench
