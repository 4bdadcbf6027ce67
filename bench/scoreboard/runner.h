// Measures a row: ours and the other in turn (A B A B ...), so that a machine that gets slower
// while it runs slows both.
//
// I1 The first pair warms up and is dropped.
// I2 `ratio` is the median of the pairs' ratios, not the ratio of the medians: a disturbance that
//    lasts for one pair touches one ratio.
// I3 Every spread is the whole range, min..max, over the pairs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "keel/base/result.h"
#include "scoreboard/row.h"

namespace keel::bench {

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};

struct Outcome {
  RowDefinition row;
  std::string other_name;
  int pairs = 0;
  Spread ours;
  Spread other;
  Spread ratio;
  bool met = false;    // judged by medians
  bool scored = true;  // false: another peer, a limit or a row without a target; shown, not counted
};

[[nodiscard]] Spread spread_of(std::vector<double> values);
[[nodiscard]] bool is_met(const RowDefinition& row, const Spread& ours, const Spread& ratio);

// Called before each pair; pair 0 is the warm-up.
using PairProgress = std::function<void(int pair, int pairs)>;

// Errors: what a sample returned.
[[nodiscard]] Result<Outcome> measure(const RowDefinition& row, const Sample& ours,
                                      const Peer& peer, int pairs, const PairProgress& progress);

}  // namespace keel::bench
