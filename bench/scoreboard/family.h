// Families: rows that one measurement feeds, as a run of an allocator gives its rate, its
// quantiles and its resident memory all at once.
//
// A sample gives figures by name, and each row of the family reads one of them. Ours runs before
// every peer (A B A C ...), round after round. A row is held against its best peer: the one with
// the best median of that figure, whatever its setting; the others are shown with --full. Limits
// are shown always and never scored, unless a row names one that it is held against.
//
// I1 A round runs ours once before each peer, so a ratio is of neighbours in time; with `ours_once`
//    only before the first, for figures that the state of the machine hardly moves.
// I2 Ours' figures are over all its runs; a peer's over one run a round.
// I3 A peer that fails is dropped with a line that says so; if ours fails, the family has failed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "keel/base/result.h"
#include "scoreboard/row.h"
#include "scoreboard/runner.h"

namespace keel::bench {

using Figures = std::map<std::string, double>;
using FigureSample = std::function<Result<Figures>()>;

struct FigurePeer {
  std::string name;
  FigureSample sample;
  bool is_limit = false;
};

// All sides, ready to be measured.
struct Study {
  FigureSample ours;
  std::vector<FigurePeer> peers;
  int rounds = 3;  // unless --pairs says otherwise
  bool ours_once = false;
  std::string skipped;  // not empty: why this cannot be measured here; the rest is empty then
};

struct FamilyDefinition {
  std::vector<RowDefinition> rows;  // with `figure`, without `prepare`
  Result<Study> (*prepare)(const Setting& setting);
};

// Adds the rows. Make one at namespace scope, in an anonymous namespace.
class FamilyRegistration {
 public:
  explicit FamilyRegistration(FamilyDefinition definition);
};

// A row of a family.
[[nodiscard]] inline RowDefinition figure_row(const char* name, const char* figure,
                                              const char* unit, Goal goal, double target,
                                              const char* question) {
  return {name, unit, question, goal, target, nullptr, nullptr, figure};
}

// A row of a family that is held against one side, by name.
[[nodiscard]] inline RowDefinition row_against(const char* side, RowDefinition row) {
  row.against = side;
  return row;
}

// What all runs gave.
class FamilyRuns {
 public:
  // Errors: what ours returned.
  [[nodiscard]] static Result<FamilyRuns> measure(
      const Study& study, int rounds, const std::function<void(const std::string&)>& progress);

  // The row's outcomes: the best peer first and scored, then with `full` the others, then limits;
  // of a row that names a side, that one alone. Errors: kNotFound if ours does not give the figure,
  // or that side was dropped; so the row is skipped.
  [[nodiscard]] Result<std::vector<Outcome>> outcomes(const RowDefinition& row, bool full) const;

 private:
  struct PeerRuns {
    std::string name;
    bool is_limit = false;
    std::vector<Figures> ours;  // the run before each of `theirs`
    std::vector<Figures> theirs;
    bool dropped = false;
  };
  // One run of ours and, if there is a peer, of that.
  Status run_pair(const Study& study, std::size_t peer, bool run_ours);
  [[nodiscard]] Outcome against(const RowDefinition& row, const PeerRuns& peer) const;
  [[nodiscard]] Result<std::vector<Outcome>> against_side(const RowDefinition& row) const;
  [[nodiscard]] std::vector<double> ours_of(const char* figure) const;

  std::vector<Figures> ours_;
  std::vector<PeerRuns> peers_;
};

}  // namespace keel::bench
