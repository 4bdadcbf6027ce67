// Real programs with generated input, for the row that runs them under a preloaded malloc.
#pragma once

#include <string>
#include <vector>

#include "keel/base/result.h"

namespace keel::bench {

struct Program {
  std::string name;
  std::vector<std::string> arguments;
};

// Writes the programs' input to `dir` (a fifth of a second to two seconds of work each, or next to
// none with `smoke`) and gives those that are installed. What a program prints depends on its input
// alone. Errors: kIo.
[[nodiscard]] Result<std::vector<Program>> write_programs(const std::string& dir, bool smoke);

}  // namespace keel::bench
