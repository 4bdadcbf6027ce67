#include "tally.h"

#include <algorithm>
#include <sstream>

namespace keel_test {

void Tally::count(const Verdict& verdict, const std::string& replay) {
  ++tried;
  torn += verdict.report.end == keel::LogEnd::kTorn ? 1 : 0;
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

void Tally::judge_life(const std::string& log, LedgerFile& ledger, const std::string& replay) {
  const PromisesCopy promises = ledger.promises();
  promised += promises.forced != 0 ? 1 : 0;
  const Verdict verdict = judge(log, *ledger, promises);
  count(verdict, replay);
  ledger.begin_life(std::max(verdict.report.last_sequence.value(), ledger->base_sequence),
                    verdict.now, promises.home);
}

void Tally::fail(const std::string& what, const std::string& replay) {
  ++other;
  failures.push_back(what + "; state " + std::to_string(tried) + "; again: keel_real_campaign " +
                     replay);
}

std::string Tally::line(std::uint64_t first_seed) const {
  std::ostringstream out;
  out << "property=" << property;
  if (!skipped.empty()) {
    out << " skipped=\"" << skipped << '"';
    return out.str();
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin_;
  out.precision(3);
  out << " tried=" << tried << " lost=" << lost << " partial=" << partial << " holes=" << holes
      << " other=" << other << " lives=" << lives << " promised=" << promised << " torn=" << torn
      << " failed_writers=" << failed_writers << " seconds=" << std::fixed << taken.count()
      << " seed=" << first_seed << note;
  return out.str();
}

}  // namespace keel_test
