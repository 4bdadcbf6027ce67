#include "tally.h"

#include <algorithm>
#include <sstream>

#include "support/tried.h"
#include "writer_plan.h"

namespace keel_test {
namespace {

bool judging = false;

}  // namespace

void Tally::count(const Verdict& verdict, const Ledger& ledger, bool met,
                  const std::string& replay) {
  ++(!met ? unmet : ledger.opened == 0 ? unopened : tried);
  promised += verdict.promised ? 1U : 0U;
  torn += verdict.report.end == keel::LogEnd::kTorn ? 1 : 0;
  check(verdict, replay);
}

void Tally::check(const Verdict& verdict, const std::string& replay) {
  switch (verdict.fault) {
    case Fault::kNone: return;
    case Fault::kLost: ++lost; break;
    case Fault::kPartial: ++partial; break;
    case Fault::kHole: ++holes; break;
    case Fault::kRefused: ++other; break;
  }
  failures.push_back(verdict.what + "; state " + std::to_string(tried) +
                     "; again: keel_real_campaign " + replay);
}

void Tally::judge_life(const std::string& log, LedgerFile& ledger, bool met,
                       const std::string& replay) {
  const PromisesCopy promises = ledger.promises();
  const Verdict verdict = judge(log, *ledger, promises);
  count(verdict, *ledger, met, replay);
  ledger.begin_life(std::max(verdict.report.last_sequence.value(), ledger->base_sequence),
                    verdict.now, promises.home);
}

void Tally::demand_met(const std::string& replay) {
  constexpr std::uint64_t kMany = 20;
  if (ok() && unmet >= kMany && tried + unopened == 0) {
    fail("none of " + std::to_string(unmet) + " runs met what was to be tried", replay);
  }
}

void Tally::fail(const std::string& what, const std::string& replay) {
  ++other;
  failures.push_back(what + "; state " + std::to_string(tried) + "; again: keel_real_campaign " +
                     replay);
}

void Tally::miss(const std::string& what, const std::string& why) {
  std::string entry = what + ": " + why;
  std::replace(entry.begin(), entry.end(), '"', '\'');
  if (std::find(missing.begin(), missing.end(), entry) == missing.end()) {
    missing.push_back(entry);
  }
}

bool Tally::log_made(const keel::Result<keel::LogInfo>& made, const std::string& replay) {
  if (made.ok()) {
    return true;
  }
  if (made.error().code == keel::Errc::kUnsupported) {
    miss("a log", made.error().message());
  } else {
    fail("the log could not be made: " + made.error().message(), replay);
  }
  return false;
}

std::string Tally::missing_text() const {
  std::string text = why_no_uring().empty() ? "" : "io_uring: " + why_no_uring();
  for (const std::string& entry : missing) {
    text += (text.empty() ? "" : "; ") + entry;
  }
  return text;
}

std::string Tally::line(std::uint64_t first_seed) const {
  if (skipped()) {
    return "property=" + property + " skipped=\"" + missing_text() + '"';
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin_;
  std::ostringstream out;
  out.precision(3);
  out << " lost=" << lost << " partial=" << partial << " holes=" << holes << " other=" << other
      << " lives=" << lives << " unopened=" << unopened << " unmet=" << unmet
      << " promised=" << promised << " torn=" << torn << " failed_writers=" << failed_writers
      << " seconds=" << std::fixed << taken.count() << " seed=" << first_seed << note;
  if (const std::string text = missing_text(); !text.empty()) {
    out << " missing=\"" << text << '"';
  }
  return tried_line(property, tried, out.str());
}

void judge_clocks() { judging = true; }

bool clocks_are_judged() { return judging; }

}  // namespace keel_test
