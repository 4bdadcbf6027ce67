// A test case that this machine cannot run.
//
// A test program all of whose cases were skipped, and none of which failed, ends with 77: of a test
// that is one case, CTest shows then that it was skipped (SKIP_RETURN_CODE). Not by an expression
// over what it prints, which would make a skip of a failure that comes after the words.
#pragma once

#include <doctest/doctest.h>

#include <string>

namespace keel_test {

inline constexpr int kAllSkipped = 77;

// Of the program that runs.
inline int skipped_cases = 0;

// To be called once in a case, which then returns.
inline void skip_case(const std::string& why) {
  ++skipped_cases;
  MESSAGE("skipped: " << why);
}

}  // namespace keel_test
