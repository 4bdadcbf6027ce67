// Runs one case of this test program in a process of its own, whose environment differs.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "support/death.h"

namespace keel_test {

// How that ends. In the name a star for a comma, which would begin another one.
inline Ending run_with(const char* name, const std::string& value, const char* test_case) {
  return run_in_child([&] {
    (void)::alarm(0);  // It may take as long as the case here.
    (void)::dup2(STDERR_FILENO, STDOUT_FILENO);
    (void)::setenv(name, value.c_str(), 1);
    const std::string filter = std::string("--test-case=") + test_case;
    (void)::execl("/proc/self/exe", "keel_tests", "--no-colors", filter.c_str(), nullptr);
    ::_exit(127);
  });
}

// True if there is one such case and it passes where the variable is set.
inline bool passes_with(const char* name, const char* value, const char* test_case) {
  const Ending ending = run_with(name, value, test_case);
  return ending.exit_code == 0 && ending.errors.find("1 passed") != std::string::npos;
}

}  // namespace keel_test
