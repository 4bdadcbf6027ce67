// Another program, run to its end, with what it wrote to stdout.
#pragma once

#include <string>
#include <vector>

#include "keel/base/result.h"

namespace keel::bench {

struct Command {
  std::vector<std::string> arguments;         // the first is the program, looked up in PATH
  std::vector<std::string> environment = {};  // NAME=value, besides ours; LD_PRELOAD is not ours
  std::string directory = {};                 // to run in; empty: ours
  double timeout_s = 1800;                    // It hangs if it takes longer.
};

// Runs it with stderr where ours goes. Threads: any; blocks. Errors: kSystem if it cannot be
// started, ends with another status than 0 (`value`), by a signal, or not in time (it is killed).
[[nodiscard]] Result<std::string> run_child(const Command& command);

// A file of this name in the folders where Debian puts libraries; empty if there is none.
[[nodiscard]] std::string find_library(const std::string& name);

// A program that was built beside the running one.
[[nodiscard]] std::string sibling_program(const std::string& name);

}  // namespace keel::bench
