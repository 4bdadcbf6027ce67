#include "support/sim_trace.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <string>

using namespace keel;

namespace {

std::string around(const SimTrace& trace, std::uint64_t step) {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  trace.print_around(file, step);
  std::rewind(file);
  std::string text(16384, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  (void)std::fclose(file);
  return text;
}

bool shows(const std::string& text, std::uint64_t step) {
  return text.find("  " + std::to_string(step) + "  ") != std::string::npos;
}

}  // namespace

TEST_CASE("a trace shows what was done around a step, or how to see it again") {
  SimTrace trace;
  CHECK(around(trace, 5) == "around step 5:\n");
  for (std::uint64_t step = 1; step <= 40'000; ++step) {
    trace.add({step, step * 10, 0, "lock", "leaf", 0, 0});
  }
  const std::string kept = around(trace, 30'000);
  CHECK_FALSE(shows(kept, 29'959));
  CHECK(shows(kept, 29'960));
  CHECK(shows(kept, 30'009));
  CHECK_FALSE(shows(kept, 30'010));
  CHECK(shows(around(trace, 40'001), 40'000));
  CHECK(around(trace, 100) == "what led to step 100 is shown by KEEL_SIM_STOP=100\n");
}
