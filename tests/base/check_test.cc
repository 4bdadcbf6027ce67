#include "keel/base/check.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "support/death.h"

using keel::Bug;
using keel::BugReport;
using keel_test::run_in_child;

namespace {

BugReport g_last{};
int g_reports = 0;

void keep(const BugReport& report) {
  g_last = report;
  ++g_reports;
}

}  // namespace

TEST_CASE("a failed check aborts and prints its condition, text and values") {
  const auto ending = run_in_child([] { KEEL_CHECK(1 + 1 == 3, "sum", 255, 7); });
  CHECK(ending.aborted_with("1 + 1 == 3: sum (0xff=255, 0x7=7"));
  CHECK(ending.errors.find("check_test.cc:") != std::string::npos);
  CHECK(run_in_child([] { KEEL_CHECK(true, "fine"); }).exit_code == 0);
}

TEST_CASE("an assert aborts in debug builds only, an audit runs with audits only") {
  const auto asserted = run_in_child([] { KEEL_ASSERT(1 > 2, "never"); });
  bool audited = false;
  KEEL_AUDIT(audited = true);
#if defined(KEEL_DEBUG)
  CHECK(asserted.aborted_with("1 > 2: never"));
#else
  CHECK(asserted.exit_code == 0);
#endif
#if defined(KEEL_AUDITS)
  CHECK(audited);
#else
  CHECK_FALSE(audited);
#endif
}

TEST_CASE("the bug handler gets the report, and the call goes on when it returns") {
  const keel::BugHandler before = keel::set_bug_handler(keep);
  const bool was_default = before == keel::abort_on_bug;
  CHECK(was_default);
  g_reports = 0;
  keel::report_bug({.bug = Bug::kDoubleFree, .call = "kvfree", .address = 0x1000});
  const bool was_ours = keel::set_bug_handler(nullptr) == keep;
  CHECK(was_ours);
  CHECK(g_reports == 1);
  CHECK(g_last.bug == Bug::kDoubleFree);
  CHECK(g_last.address == 0x1000);
  CHECK(std::strcmp(g_last.call, "kvfree") == 0);
}

TEST_CASE("without a handler a bug aborts and is told in one line") {
  const auto ending = run_in_child([] {
    keel::report_bug({.bug = Bug::kInteriorPointer,
                      .call = "unmap",
                      .address = 0x2010,
                      .area_start = 0x2000,
                      .area_bytes = 4096,
                      .owner = "test"});
  });
  CHECK(ending.aborted_with("unmap: interior pointer: address 0x2010, area 0x2000 + 4096 bytes"));
  CHECK(ending.errors.find("'test'") != std::string::npos);
}

TEST_CASE("of a bug that has no address or area none is printed") {
  const auto ending =
      run_in_child([] { keel::report_bug({.bug = Bug::kNestedTransaction, .call = "begin"}); });
  CHECK(ending.aborted_with("keel: bug in the caller of begin: nested transaction\n"));
}

TEST_CASE("every bug has a name of its own") {
  CHECK(std::strcmp(keel::to_string(static_cast<Bug>(255)), "unknown bug") == 0);
  for (int i = 0; i <= static_cast<int>(Bug::kForceInCallback); ++i) {
    CHECK(std::strcmp(keel::to_string(static_cast<Bug>(i)), "unknown bug") != 0);
    for (int j = 0; j < i; ++j) {
      CHECK(std::strcmp(keel::to_string(static_cast<Bug>(i)),
                        keel::to_string(static_cast<Bug>(j))) != 0);
    }
  }
}
