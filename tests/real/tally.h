// What a campaign has tried and found, and the line it ends with.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "judge.h"
#include "keel/cil/log_file.h"

namespace keel_test {

struct Tally {
  explicit Tally(std::string name) : property(std::move(name)) {}

  std::string property;
  std::vector<std::string> missing;  // "what: why"; what this machine does not give
  std::string note;                  // further facts for the line
  std::uint64_t tried = 0;
  std::uint64_t unopened = 0;  // judged too, but of a life that never had its log open
  std::uint64_t unmet = 0;     // as well, of one that did not meet what was to be tried
  std::uint64_t lives = 0;
  std::uint64_t promised = 0;  // states in which something was, unmet ones too
  std::uint64_t torn = 0;      // states whose report said so
  std::uint64_t failed_writers = 0;
  std::uint64_t lost = 0;
  std::uint64_t partial = 0;
  std::uint64_t holes = 0;
  std::uint64_t other = 0;
  std::vector<std::string> failures;  // each with the command that repeats it

  // Of a state of the ledger's life: if that never had its log open, it tried nothing of the
  // journal but opening. `met`: what was to be tried with it has come to pass. `replay`: the
  // arguments of keel_real_campaign that repeat it.
  void count(const Verdict& verdict, const Ledger& ledger, bool met, const std::string& replay);
  // As count(), of a state that is judged but not counted as tried: it was before, or is beside.
  void check(const Verdict& verdict, const std::string& replay);
  // Judges the log after a life; the next one begins with what was found.
  void judge_life(const std::string& log, LedgerFile& ledger, bool met, const std::string& replay);
  // To be called at the end: of many runs some must have met what they were to.
  void demand_met(const std::string& replay);
  void fail(const std::string& what, const std::string& replay);
  // Something cannot be tried here. Said once, however often it is told.
  void miss(const std::string& what, const std::string& why);
  // Whether a log was made. Where there is no direct I/O that is missing, else it is a failure.
  bool log_made(const keel::Result<keel::LogInfo>& made, const std::string& replay);
  [[nodiscard]] bool ok() const { return failures.empty(); }
  // Nothing could be tried, and nothing went wrong.
  [[nodiscard]] bool skipped() const { return ok() && tried + unmet == 0 && !missing.empty(); }
  // All of `missing`, and io_uring; "" if nothing is.
  [[nodiscard]] std::string missing_text() const;
  // "property=... tried=... lost=... missing="..."", or "property=... skipped="..."".
  [[nodiscard]] std::string line(std::uint64_t first_seed) const;

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// What takes too long by the clock is a failure from now on: in a campaign that runs alone, and in
// no test.
void judge_clocks();
[[nodiscard]] bool clocks_are_judged();

}  // namespace keel_test
