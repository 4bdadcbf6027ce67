// The k-th write or flush of a file on faultfs fails, is short, lies or is lost, or a bit of the
// k-th read of a closed log flips: for every k that there is of each scenario.
//
// A seed is one place of that space: a kind of fault, one of eight writers, and k. How many such
// operations a writer makes, runs of it without a fault tell; what is beyond them is not tried and
// not counted, nor is a run that did not meet its fault.
#include <algorithm>
#include <array>
#include <bit>
#include <optional>

#include "campaigns.h"
#include "fuse_lab.h"
#include "judge.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

enum class Op : std::uint8_t { kWrite, kFsync, kChange, kRead };  // kChange: a write or a flush
constexpr std::array<const char*, 4> kOpNames = {"write", "fsync", "change", "read"};

// Whether the writer is to fail. What a disk calls done, what comes late and what was short once is
// no failure.
enum class Told : std::uint8_t { kMust, kMay, kMustNot };

struct FaultCase {
  const char* rule;  // after op, first and last
  Op op;
  bool once;
  bool lies;  // the disk does not say that it fails
  Told told;
};

// A write is of whole blocks of 4096 bytes. What is written of one cannot be gone on from.
constexpr FaultCase kFaultCases[] = {
    {"eio 0", Op::kWrite, true, false, Told::kMust},
    {"eio 0", Op::kWrite, false, false, Told::kMust},
    {"eio 0", Op::kFsync, true, false, Told::kMust},
    {"eiodrop 0", Op::kFsync, true, false, Told::kMust},
    {"eiodrop 0", Op::kFsync, false, false, Told::kMust},
    {"enospc 0", Op::kWrite, true, false, Told::kMust},
    {"enospc 0", Op::kFsync, true, false, Told::kMust},
    {"eio 0", Op::kChange, true, false, Told::kMust},
    {"short 2048", Op::kWrite, true, false, Told::kMay},
    {"short 4096", Op::kWrite, false, false, Told::kMay},
    {"short 512", Op::kWrite, true, false, Told::kMay},
    {"short 4096", Op::kWrite, true, false, Told::kMustNot},
    {"short 0", Op::kWrite, true, false, Told::kMay},
    {"lie 0", Op::kFsync, false, true, Told::kMustNot},
    {"lie 0", Op::kChange, false, true, Told::kMustNot},
    {"lose 0", Op::kWrite, true, true, Told::kMustNot},
    {"misplace 8192", Op::kWrite, true, true, Told::kMustNot},
    {"delay 3", Op::kChange, true, false, Told::kMustNot},
    {"flip", Op::kRead, true, false, Told::kMay},
};
constexpr std::uint64_t kFaultKinds = std::size(kFaultCases);
constexpr std::uint64_t kScenarios = 8;
constexpr std::uint64_t kMostOperations = 256;  // k goes so far; no writer makes more changes
constexpr std::uint64_t kPlaces = kFaultKinds * kScenarios * kMostOperations;
constexpr std::uint64_t kFlipsOfRead = 12;

using Counts = std::array<std::uint64_t, std::size(kOpNames)>;

class FaultsLab {
 public:
  explicit FaultsLab(Tally& tally) : tally_(tally) {}
  [[nodiscard]] FuseLab& lab() { return lab_; }

  void meet(std::uint64_t seed);
  // To be called at the end: of each operation some faults must have been met.
  void demand_met(const std::string& replay);
  [[nodiscard]] std::string note() const;

 private:
  [[nodiscard]] WriterPlan plan(std::uint64_t scenario) const;
  // The writer's exit code; nullopt if there was no log.
  std::optional<int> run_writer(std::uint64_t scenario, const std::string& rule);
  // A log that its writer has closed, as it is: whole. Gives what must be found in it from now on.
  std::optional<PromisesCopy> judge_closed(const std::string& what);
  const Counts* operations(std::uint64_t scenario);
  // False if the fault was not met.
  bool fault(const FaultCase& fault, std::uint64_t scenario, std::uint64_t k);
  void flip_closed(std::uint64_t scenario, std::uint64_t from_end);
  void flip_once(const PromisesCopy& wanted, std::uint64_t k, Reading reading,
                 const std::string& what);
  void flip_failed(const PromisesCopy& promises, const std::string& what);
  void fail(const std::string& what) { tally_.fail(what, replay_); }

  Tally& tally_;
  FuseLab lab_;
  std::array<std::optional<Counts>, kScenarios> operations_{};
  Counts met_{};  // by operation, as unmet_
  Counts unmet_{};
  std::string replay_;
  std::uint64_t random_ = 0;
  std::uint64_t beyond_ = 0;
  std::uint64_t flips_ = 0;
  std::uint64_t flips_told_ = 0;
};

WriterPlan FaultsLab::plan(std::uint64_t scenario) const {
  const bool large = scenario == 7;
  WriterPlan plan = lab_.plan(scenario * 7919 + 17, large);
  plan.large = large;
  plan.uring = scenario % 2 == 1 && why_no_uring().empty();
  plan.buffered = scenario / 2 % 2 == 1;
  plan.threads = scenario < 4 ? 1 : 3;
  // A cover is two writes and two flushes, and how many there are the disk's speed says.
  plan.transactions = (large ? 20 : plan.covers() ? 40 : 80) / plan.threads;
  return plan;
}

std::optional<int> FaultsLab::run_writer(std::uint64_t scenario, const std::string& rule) {
  const WriterPlan wanted = plan(scenario);
  if (!tally_.log_made(lab_.make_log(wanted.large ? FuseLab::kLargeLog : FuseLab::kSmallLog),
                       replay_)) {
    return std::nullopt;
  }
  lab_.disk()->clear();
  if (!rule.empty()) {
    lab_.disk()->rule(rule);
  }
  Helper writer(wanted.words());
  const int code = writer.wait();
  ++tally_.lives;
  return code;
}

std::optional<PromisesCopy> FaultsLab::judge_closed(const std::string& what) {
  PromisesCopy wanted = lab_.ledger().promises();
  wanted.forced = newest_of(*lab_.ledger());
  const Verdict verdict = judge(*lab_.disk() / "log", *lab_.ledger(), wanted);
  tally_.check(verdict, replay_);
  if (tally_.ok() && verdict.report.end != LogEnd::kClean) {
    fail("a log that was closed is not clean: " + verdict.report.message());
  }
  if (!tally_.ok()) {
    tally_.failures.back() += " (closed: " + what + ")";
    return std::nullopt;
  }
  return wanted;
}

// Of a run without a fault and of the reading of its log: the most of two.
const Counts* FaultsLab::operations(std::uint64_t scenario) {
  auto& known = operations_[scenario];
  for (int i = 0; i < 2 && tally_.ok() && (i > 0 || !known); ++i) {
    const auto code = run_writer(scenario, "");
    if (!code) {
      return nullptr;
    }
    if (code != kWriterDone) {
      fail("a writer without a fault ended with " + std::to_string(*code));
      return nullptr;
    }
    const FaultFs::Counts of_writer = lab_.disk()->counts();
    lab_.disk()->clear();
    if (!judge_closed("no fault")) {
      return nullptr;
    }
    const Counts now = {of_writer.writes, of_writer.fsyncs, of_writer.writes + of_writer.fsyncs,
                        lab_.disk()->counts().reads};
    known = known.value_or(Counts{});
    for (std::size_t op = 0; op < now.size(); ++op) {
      (*known)[op] = std::max((*known)[op], now[op]);
    }
    // Of reads the machine's read-ahead makes few or many: the last kMostOperations are tried.
    if ((*known)[static_cast<std::size_t>(Op::kChange)] > kMostOperations) {
      fail("writer " + std::to_string(scenario) + " makes more operations than are tried");
      return nullptr;
    }
  }
  return known ? &*known : nullptr;
}

// Which operation the turn-th is: each of kMostOperations once, in steps, so that a few turns see
// early and late ones. However many there are: that may differ a little in the next chunk of seeds.
std::uint64_t operation_of(std::uint64_t turn, std::uint64_t start) {
  constexpr std::uint64_t kStep = (kMostOperations * 5 / 8) | 1U;
  static_assert(std::has_single_bit(kMostOperations), "an odd step meets all");
  return 1 + (turn * kStep + start) % kMostOperations;
}

void FaultsLab::meet(std::uint64_t seed) {
  const std::uint64_t place = (seed - 1) % kPlaces;
  const std::uint64_t kind = place % kFaultKinds;
  const FaultCase& one = kFaultCases[kind];
  const std::uint64_t scenario = place / kFaultKinds % kScenarios;
  const std::uint64_t turn = place / kFaultKinds / kScenarios;
  replay_ = replay_of("faults", seed);
  random_ = seed * 7919;
  const Counts* there = operations(scenario);
  if (there == nullptr) {
    return;
  }
  const std::uint64_t most = (*there)[static_cast<std::size_t>(one.op)];
  // Of reads from the end on: the last are of checkpoints. Else where each kind of each writer has
  // its own, so that no range of seeds is beyond.
  const std::uint64_t start = one.op == Op::kRead ? 0 : 101 * kind + 37 * scenario;
  const std::uint64_t k = operation_of(turn, start);
  if (k > most) {
    ++beyond_;
    return;
  }
  if (one.op == Op::kRead) {
    flip_closed(scenario, k);
    return;
  }
  // Threads make a few operations more or less each time.
  for (int i = 0; i < 3 && tally_.ok(); ++i) {
    if (fault(one, scenario, k)) {
      ++met_[static_cast<std::size_t>(one.op)];
      return;
    }
  }
  if (tally_.ok()) {
    ++tally_.unmet;
    ++unmet_[static_cast<std::size_t>(one.op)];
  }
}

// Of all that this process has tried: a chunk of seeds has few of each.
void FaultsLab::demand_met(const std::string& replay) {
  constexpr std::uint64_t kMany = 5;
  static Counts met{};
  static Counts unmet{};
  for (std::size_t op = 0; op < met_.size() && tally_.ok(); ++op) {
    met[op] += met_[op];
    unmet[op] += unmet_[op];
    if (unmet[op] >= kMany && met[op] == 0) {
      tally_.fail(
          "none of " + std::to_string(unmet[op]) + " runs met its fault at a " + kOpNames[op],
          replay);
    }
  }
}

std::string FaultsLab::note() const {
  std::string text = " of=" + std::to_string(kPlaces) + " beyond=" + std::to_string(beyond_) +
                     " flips=" + std::to_string(flips_) +
                     " flips_told=" + std::to_string(flips_told_);
  for (std::size_t op = 0; op < met_.size(); ++op) {
    text += std::string(" met_") + kOpNames[op] + "=" + std::to_string(met_[op]);
  }
  return text;
}

bool FaultsLab::fault(const FaultCase& fault, std::uint64_t scenario, std::uint64_t k) {
  const std::string op = kOpNames[static_cast<std::size_t>(fault.op)];
  const std::string last = fault.once ? std::to_string(k) : "999999999";
  const auto code =
      run_writer(scenario, op + " " + std::to_string(k) + " " + last + " " + fault.rule);
  if (!code) {
    return false;
  }
  const bool met = lab_.disk()->counts().faults > 0;
  const bool refused = code == kWriterFailed || code == kWriterNotOpened;
  const std::string what = op + " " + fault.rule + (fault.once ? " at " : " from ") +
                           std::to_string(k) + " of writer " + std::to_string(scenario);
  tally_.failed_writers += refused ? 1 : 0;
  if (code != kWriterDone && !refused) {
    fail("the writer ended with " + std::to_string(*code) + ": " + what);
    return met;
  }
  // Of a large write FUSE makes several requests, and a short write when a later one fails: its
  // rest is written then, and there is nothing to tell. All that was committed must be there.
  const bool may_be_short = fault.once && fault.op != Op::kFsync && plan(scenario).large;
  if (met && fault.told == Told::kMust && !refused && !may_be_short) {
    fail("nobody was told of " + what);
    return met;
  }
  if (met && fault.told == Told::kMustNot && refused) {
    fail("failed though nothing did: " + what);
    return met;
  }
  if (!met && refused) {
    fail("a failure without a fault: " + what);
    return met;
  }
  lab_.disk()->cut(static_cast<Cut>(random_step(random_) % faultfs::kCuts), random_step(random_));
  if (code == kWriterDone && !fault.lies) {
    if (!judge_closed(what)) {
      return met;
    }
  }
  const PromisesCopy promises = lab_.ledger().promises();
  const Verdict verdict =
      judge(*lab_.disk() / "log", *lab_.ledger(), promises, Reading::kScan, fault.lies);
  if (met) {
    tally_.count(verdict, *lab_.ledger(), true, replay_);
  } else {
    tally_.check(verdict, replay_);
  }
  if (!tally_.ok()) {
    tally_.failures.back() += " (" + what + ")";
  } else if (refused && !fault.lies) {
    flip_failed(promises, what);
  }
  return met;
}

// Nothing has happened to the log but that its writer has closed it, so it says where it ends: what
// is read is all of it, or damaged, or refused.
void FaultsLab::flip_closed(std::uint64_t scenario, std::uint64_t from_end) {
  const auto code = run_writer(scenario, "");
  if (code != kWriterDone) {
    if (code) {
      fail("a writer without a fault failed");
    }
    return;
  }
  lab_.disk()->clear();
  const auto wanted = judge_closed("no fault");
  if (!wanted) {
    return;
  }
  const std::uint64_t reads = lab_.disk()->counts().reads;
  if (reads < from_end) {
    ++tally_.unmet;
    ++unmet_[static_cast<std::size_t>(Op::kRead)];
    return;
  }
  ++met_[static_cast<std::size_t>(Op::kRead)];
  const std::uint64_t k = reads + 1 - from_end;
  for (std::uint64_t i = 0; i < kFlipsOfRead && tally_.ok(); ++i) {
    // The last is by a journal that goes on where it is let.
    flip_once(*wanted, k, i + 1 < kFlipsOfRead ? Reading::kScan : Reading::kOpen,
              "writer " + std::to_string(scenario));
  }
  if (tally_.ok()) {
    tally_.promised += lab_.ledger().promises().forced != 0 ? 1U : 0U;
    ++tally_.tried;
  }
}

void FaultsLab::flip_once(const PromisesCopy& wanted, std::uint64_t k, Reading reading,
                          const std::string& what) {
  const std::string at = std::to_string(k);
  const std::string bit = std::to_string(random_step(random_) >> 8U);
  const std::string rule = "read " + at + " " + at + " flip " + bit;
  const auto judge_flipped = [&](bool lied) {
    lab_.disk()->clear();
    lab_.disk()->rule(rule);
    Verdict verdict = judge(*lab_.disk() / "log", *lab_.ledger(), wanted, reading, lied);
    if (lab_.disk()->counts().faults == 0) {
      fail("nothing flipped: " + rule);
    }
    lab_.disk()->clear();
    return verdict;
  };
  Verdict verdict = judge_flipped(false);
  ++flips_;
  if (verdict.fault == Fault::kRefused) {
    ++flips_told_;
    // It says so: then what it has delivered before is a prefix.
    verdict = judge_flipped(true);
    if (verdict.fault == Fault::kRefused) {
      verdict.fault = Fault::kNone;
    }
  }
  tally_.check(verdict, replay_);
  if (!verdict.ok()) {
    tally_.failures.back() += " (" + rule + ", " + what + ")";
  }
}

// The writer has met an error, so its log ends anywhere: never a wrong value.
void FaultsLab::flip_failed(const PromisesCopy& promises, const std::string& what) {
  const std::string rule = "read " + std::to_string(1 + random_step(random_) % 3) + " 9 flip " +
                           std::to_string(random_step(random_) >> 8U);
  lab_.disk()->clear();
  lab_.disk()->rule(rule);
  Verdict verdict =
      judge(*lab_.disk() / "log", *lab_.ledger(), promises, Reading::kScan, /*lied=*/true);
  if (lab_.disk()->counts().faults > 0) {
    ++flips_;
  }
  lab_.disk()->clear();
  if (verdict.fault == Fault::kRefused) {
    ++flips_told_;
    verdict.fault = Fault::kNone;
  }
  tally_.check(verdict, replay_);
  if (!verdict.ok()) {
    tally_.failures.back() += " (" + rule + ", " + what + ")";
  }
}

}  // namespace

Tally run_faults(std::uint64_t first, std::uint64_t count) {
  Tally tally("faults");
  FaultsLab faults(tally);
  if (faults.lab().disk() == nullptr) {
    tally.miss("faultfs", faults.lab().why());
    return tally;
  }
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    faults.meet(seed);
  }
  faults.demand_met("--only faults --first " + std::to_string(first) + " --count " +
                    std::to_string(count));
  tally.note = faults.note();
  return tally;
}

}  // namespace keel_test
