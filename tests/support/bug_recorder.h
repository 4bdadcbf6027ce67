// BugRecorder: while it lives, reports of callers' bugs are kept instead of aborting.
// Threads: one at a time makes bugs.
#pragma once

#include <vector>

#include "keel/base/check.h"

namespace keel_test {

class BugRecorder {
 public:
  BugRecorder() : before_(keel::set_bug_handler(record)) { reports().clear(); }
  ~BugRecorder() { keel::set_bug_handler(before_); }
  BugRecorder(const BugRecorder&) = delete;
  BugRecorder& operator=(const BugRecorder&) = delete;

  [[nodiscard]] std::size_t count() const { return reports().size(); }
  // The newest report, taken away; `call` and `owner` are static text.
  [[nodiscard]] keel::BugReport take() {
    KEEL_CHECK(!reports().empty(), "no bug was reported");
    const keel::BugReport report = reports().back();
    reports().pop_back();
    return report;
  }

 private:
  static std::vector<keel::BugReport>& reports() {
    static std::vector<keel::BugReport> kept;
    return kept;
  }
  static void record(const keel::BugReport& report) { reports().push_back(report); }

  keel::BugHandler before_;
};

}  // namespace keel_test
