// How to run a test case again, for what a failure prints.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace keel_test {

// The command that runs the present test case, and no other.
inline std::string this_case_again() {
  const doctest::ContextOptions* options = doctest::getContextOptions();
  std::string name = options->currentTest->m_name;
  std::replace(name.begin(), name.end(), ',', '*');  // A comma would begin another filter.
  return std::string(options->binary_name.c_str()) + " '-tc=" + name + "'";
}

}  // namespace keel_test
