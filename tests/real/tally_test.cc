// What a campaign calls missing, and what a failure.
#include "tally.h"

#include <doctest/doctest.h>

#include "environment.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a log that cannot be made for want of direct I/O is missing, else it is a failure") {
  Tally tally("log");
  CHECK(tally.log_made(LogInfo{}, "again"));
  CHECK(tally.ok());
  CHECK(tally.missing.empty());
  for (int i = 0; i < 2; ++i) {
    CHECK_FALSE(tally.log_made(Error{Errc::kUnsupported, 0, "no direct I/O", 0}, "again"));
  }
  CHECK(tally.ok());
  CHECK(tally.skipped());
  CHECK(tally.missing.size() == 1);
  CHECK_FALSE(tally.log_made(Error{Errc::kIo, 5, "a write", 0}, "again"));
  CHECK_FALSE(tally.ok());
  CHECK_FALSE(tally.skipped());
}

TEST_CASE("a directory in memory is taken only if files there have direct I/O") {
  const std::string root = memory_root();
  CHECK((root.empty() || why_no_direct_io(root).empty()));
  CHECK(why_no_direct_io("/proc/self").find("no file in /proc/self") == 0);
}
