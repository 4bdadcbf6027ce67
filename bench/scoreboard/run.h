// A run over rows: measures each, prints it, keeps what came out. A family is measured when its
// first row comes, for all of them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "scoreboard/family.h"
#include "scoreboard/row.h"
#include "scoreboard/runner.h"

namespace keel::bench {

// One line on stderr, rewritten in place; nothing where nobody looks.
class Progress {
 public:
  Progress();
  void show(const std::string& text) const;
  void clear() const { show(""); }

 private:
  const bool on_;
};

class Run {
 public:
  explicit Run(Setting setting) : setting_(std::move(setting)) {}

  // Prints the table; of a smoke run only what was skipped or failed. False if a row failed.
  bool all(const std::vector<RowDefinition>& rows);
  [[nodiscard]] const std::vector<Outcome>& outcomes() const { return outcomes_; }

 private:
  struct Measured {
    std::string skipped;
    Result<FamilyRuns> runs;
  };

  Status single(const RowDefinition& row);
  Status of_family(const RowDefinition& row);
  [[nodiscard]] Measured measure_family(const FamilyDefinition& family) const;
  void keep(Outcome outcome);

  const Setting setting_;
  const Progress progress_;
  std::map<const FamilyDefinition*, Measured> families_;
  std::string title_;
  std::vector<Outcome> outcomes_;
};

}  // namespace keel::bench
