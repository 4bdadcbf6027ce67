#include "scoreboard/runner.h"

#include <algorithm>
#include <vector>

namespace keel::bench {

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  const double median =
      values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

bool is_met(const RowDefinition& row, const Spread& ours, const Spread& ratio) {
  switch (row.goal) {
    case Goal::kRatioAtLeast: return ratio.median >= row.target;
    case Goal::kRatioAtMost: return ratio.median <= row.target;
    case Goal::kOursAtMost: return ours.median <= row.target;
    case Goal::kOursAtLeast: return ours.median >= row.target;
    case Goal::kReported: return true;
  }
  return false;
}

Result<Outcome> measure(const RowDefinition& row, const Sample& ours, const Peer& peer, int pairs,
                        const PairProgress& progress) {
  std::vector<double> our_values, other_values, ratios;
  for (int pair = 0; pair <= pairs; ++pair) {
    progress(pair, pairs);
    const auto a = ours();
    if (!a) {
      return a.error();
    }
    const auto b = peer.sample();
    if (!b) {
      return b.error();
    }
    if (*a <= 0 || *b <= 0) {
      return Error{Errc::kInvalidArgument, 0, "a sample is not above zero", 0};
    }
    if (pair > 0) {
      our_values.push_back(*a);
      other_values.push_back(*b);
      ratios.push_back(*a / *b);
    }
  }
  Outcome outcome{row,
                  peer.name,
                  pairs,
                  spread_of(our_values),
                  spread_of(other_values),
                  spread_of(ratios),
                  false,
                  row.goal != Goal::kReported};
  outcome.met = is_met(row, outcome.ours, outcome.ratio);
  return outcome;
}

}  // namespace keel::bench
