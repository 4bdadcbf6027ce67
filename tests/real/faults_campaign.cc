// The k-th write or flush of a file on faultfs fails, is short, lies or is lost.
#include "campaigns.h"
#include "fuse_lab.h"
#include "judge.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

struct FaultCase {
  const char* rule;  // after op, first and last
  const char* op;
  bool once;
  bool lies;     // the disk does not say that it fails
  bool failure;  // the writer must meet it
};

constexpr FaultCase kFaultCases[] = {
    {"eio 0", "write", true, false, true},       {"eio 0", "write", false, false, true},
    {"eio 0", "fsync", true, false, true},       {"eiodrop 0", "fsync", true, false, true},
    {"eiodrop 0", "fsync", false, false, true},  {"enospc 0", "write", true, false, true},
    {"enospc 0", "fsync", true, false, true},    {"eio 0", "change", true, false, true},
    {"short 4096", "write", true, false, false}, {"short 4096", "write", false, false, false},
    {"short 512", "write", true, false, false},  {"short 0", "write", true, false, false},
    {"lie 0", "fsync", false, true, false},      {"lie 0", "change", false, true, false},
    {"lose 0", "write", true, true, false},      {"misplace 8192", "write", true, true, false},
    {"delay 3", "change", true, false, false},
};
constexpr std::uint64_t kFaultKinds = std::size(kFaultCases);

void fault_of(FuseLab& lab, Tally& tally, std::uint64_t seed) {
  const FaultCase& fault = kFaultCases[seed % kFaultKinds];
  // Steps so that a few seeds already reach beyond the writes of opening.
  const std::uint64_t k = 1 + seed / kFaultKinds * 5 % 97;
  std::uint64_t random = seed * 7919;
  const std::string replay = replay_of("faults", seed);
  if (!lab.make_log(FuseLab::kSmallLog)) {
    tally.fail("the log could not be made", replay);
    return;
  }
  lab.disk()->clear();
  const std::string last = fault.once ? std::to_string(k) : "999999999";
  lab.disk()->rule(std::string(fault.op) + " " + std::to_string(k) + " " + last + " " + fault.rule);
  WriterPlan plan = lab.plan(random_step(random), seed / kFaultKinds % 5 == 4);
  plan.large = false;
  plan.transactions = 160 / plan.threads;
  Helper writer(plan.words());
  const int code = writer.wait();
  ++tally.lives;
  const bool met = lab.disk()->counts().faults > 0;
  const bool refused = code == kWriterFailed || code == kWriterNotOpened;
  tally.failed_writers += refused ? 1 : 0;
  const std::string what = std::string(fault.op) + " " + fault.rule + " at " + std::to_string(k);
  if (code != kWriterDone && !refused) {
    tally.fail("the writer ended with " + std::to_string(code) + ": " + what, replay);
    return;
  }
  if (met && fault.failure && !refused) {
    tally.fail("nobody was told of " + what, replay);
    return;
  }
  if (!met && refused) {
    tally.fail("a failure without a fault: " + what, replay);
    return;
  }
  lab.disk()->cut(static_cast<Cut>(random_step(random) % faultfs::kCuts), random_step(random));
  const bool opened = lab.ledger()->opened != 0;
  const PromisesCopy promises = lab.ledger().promises();
  tally.promised += promises.forced != 0 ? 1 : 0;
  tally.count(judge(*lab.disk() / "log", *lab.ledger(), promises, Reading::kScan, fault.lies),
              opened, replay);
  if (!tally.ok()) {
    tally.failures.back() += " (" + what + ")";
    return;
  }
  // Bits that flip on the way from the disk: never a wrong value.
  if (seed % 4 == 0 && !fault.lies) {
    lab.disk()->rule("read " + std::to_string(1 + random_step(random) % 3) + " 9 flip " +
                     std::to_string(random_step(random) >> 8U));
    Verdict verdict = judge(*lab.disk() / "log", *lab.ledger(), promises, Reading::kScan, true);
    if (verdict.fault == Fault::kRefused) {
      verdict.fault = Fault::kNone;  // said so: that is what is promised
    }
    tally.count(verdict, opened, replay);
    lab.disk()->clear();
  }
}

}  // namespace

Tally run_faults(std::uint64_t first, std::uint64_t count) {
  Tally tally("faults");
  FuseLab lab;
  if (lab.disk() == nullptr) {
    tally.miss("faultfs", lab.why());
    return tally;
  }
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    fault_of(lab, tally, seed);
  }
  return tally;
}

}  // namespace keel_test
