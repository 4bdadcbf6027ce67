// What a test or a campaign says of how much it has tried.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace keel_test {

// "property=NAME tried=N" and `more`, which begins with a space. tests/trust/trust.py sums up such
// lines; that a test has failed its exit code says.
inline std::string tried_line(const std::string& property, std::uint64_t count,
                              const std::string& more) {
  return "property=" + property + " tried=" + std::to_string(count) + more;
}

inline void say_tried(const std::string& property, std::uint64_t count,
                      const std::string& more = "") {
  (void)std::printf("%s\n", tried_line(property, count, more).c_str());
  (void)std::fflush(stdout);
}

}  // namespace keel_test
