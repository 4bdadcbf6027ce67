#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "keel/base/os.h"
#include "support/skip_case.h"

namespace {

int cases_begun = 0;

// Counts what runs; doctest itself tells only its reporters.
struct Counter : doctest::IReporter {
  explicit Counter(const doctest::ContextOptions& /*options*/) {}
  void report_query(const doctest::QueryData& /*data*/) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& /*stats*/) override {}
  void test_case_start(const doctest::TestCaseData& /*data*/) override { ++cases_begun; }
  void test_case_reenter(const doctest::TestCaseData& /*data*/) override {}
  void test_case_end(const doctest::CurrentTestCaseStats& /*stats*/) override {}
  void test_case_exception(const doctest::TestCaseException& /*exception*/) override {}
  void subcase_start(const doctest::SubcaseSignature& /*signature*/) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData& /*data*/) override {}
  void log_message(const doctest::MessageData& /*data*/) override {}
  void test_case_skipped(const doctest::TestCaseData& /*data*/) override {}
};
REGISTER_LISTENER("counter", 1, Counter);

// In place for as long as cases run. Under Os itself default_pool() would have a thread, which goes
// on under every Os that a later case puts in place, as one more caller of it.
struct TestOs final : keel::Os {};

}  // namespace

int main(int count, char** words) {
  TestOs quiet;
  const keel::ScopedOs scope(quiet);
  const int code = doctest::Context(count, words).run();
  const bool all_skipped = cases_begun > 0 && keel_test::skipped_cases == cases_begun;
  return code == 0 && all_skipped ? keel_test::kAllSkipped : code;
}

#if defined(__SANITIZE_THREAD__)
// A fork takes all locks of the jemalloc inside keel::alloc at once, more than ThreadSanitizer's
// deadlock detector can follow; keel's own locks have ranks, which are checked in every test build.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "detect_deadlocks=0"; }
#endif
