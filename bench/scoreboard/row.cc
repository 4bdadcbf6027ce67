#include "scoreboard/row.h"

#include <algorithm>
#include <cstring>

namespace keel::bench {
namespace {

// A function's static: it exists before the first registration, in whatever order files come.
std::vector<RowDefinition>& registered() {
  static std::vector<RowDefinition> rows;
  return rows;
}

}  // namespace

RowRegistration::RowRegistration(const RowDefinition& definition) {
  registered().push_back(definition);
}

bool more_is_better(Goal goal) { return goal == Goal::kRatioAtLeast || goal == Goal::kOursAtLeast; }

std::vector<RowDefinition> all_rows() {
  std::vector<RowDefinition> rows = registered();
  std::sort(rows.begin(), rows.end(), [](const RowDefinition& a, const RowDefinition& b) {
    return std::strcmp(a.name, b.name) < 0;
  });
  return rows;
}

}  // namespace keel::bench
