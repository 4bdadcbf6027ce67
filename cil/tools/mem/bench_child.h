// Runs a workload in a child process and fetches its rows.
//
// SIGINT and SIGTERM ask the child to stop early: it gives what it has by then. A child that does
// not come to an end for some seconds after that is killed.
#pragma once

#include <functional>
#include <string>

#include "output.h"

namespace keel::tools {

struct ChildOutcome {
  Json rows = Json::array();
  std::string failure;  // empty: it ran
};

// From here on SIGINT and SIGTERM are only noted, here and in children. Twice does no harm.
void note_signals();
[[nodiscard]] bool signal_noted();

// `work` runs in the child, which has no other thread; `tick` here, ten times a second.
// Throws Failure if there can be no child.
[[nodiscard]] ChildOutcome run_in_child(const std::function<Json()>& work,
                                        const std::function<void()>& tick);

}  // namespace keel::tools
