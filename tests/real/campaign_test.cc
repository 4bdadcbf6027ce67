// The slice of each campaign that every run of the tests takes. KEEL_TEST_ROUNDS takes more of it.
#include <doctest/doctest.h>

#include <cstdio>

#include "campaigns.h"
#include "environment.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel_test;

namespace {

void run(const char* name) {
  prepare_environment();
  for (const RealCampaign& campaign : campaigns()) {
    if (std::string(campaign.name) != name) {
      continue;
    }
    const std::uint64_t seed = test_seed(name, 1);
    const Tally tally = campaign.run(seed, test_rounds(campaign.slice, campaign.sanitized));
    (void)std::printf("%s\n", tally.line(seed).c_str());
    for (const std::string& failure : tally.failures) {
      FAIL_CHECK(failure);
    }
    if (tally.skipped()) {
      skip_case(tally.missing_text());
      return;
    }
    if (const std::string text = tally.missing_text(); !text.empty()) {
      MESSAGE("missing: " << text);
    }
    CHECK(tally.tried + tally.unopened > 0);
    CHECK((tally.promised > 0 || !campaign.promises));
    return;
  }
  FAIL("there is no campaign of that name");
}

}  // namespace

TEST_CASE("a power cut of a FUSE file system at any moment loses nothing that was promised") {
  run("fuse");
}

TEST_CASE("a disk that fails, is short, lies or loses never makes a false promise or value") {
  run("faults");
}

TEST_CASE("a writer that is killed at any moment leaves everything that it promised") {
  run("kill");
}

TEST_CASE("ext4 that is shut down under a journal keeps what it promised") { run("shutdown-ext4"); }

TEST_CASE("XFS that is shut down under a journal keeps what it promised") { run("shutdown-xfs"); }

TEST_CASE("ext4 and XFS whose disk fails or loses power keep what the journal promised") {
  run("loop");
}

TEST_CASE("a full file system refuses a new log and never fails a log that is there") {
  run("full");
}

TEST_CASE("a process that meets its limits is refused or goes on and breaks no promise") {
  run("limits");
}

TEST_CASE("a writer that the kernel kills for want of memory leaves everything that it promised") {
  run("memory");
}

TEST_CASE("a journal on a device that hangs says what it waits for and goes on afterwards") {
  run("hangs");
}

// Two mappings are left when threads allocate for the first time. Seed 130 crashed jemalloc.
TEST_CASE("threads that come when there are no mappings left are refused memory and do not crash") {
  prepare_environment();
  for (std::uint64_t round = 0; round < test_rounds(3, 1); ++round) {
    const Tally tally = run_limits(130, 1);
    for (const std::string& failure : tally.failures) {
      FAIL_CHECK(failure);
    }
  }
}
