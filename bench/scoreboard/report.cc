#include "scoreboard/report.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

namespace keel::bench {
namespace {

constexpr int kNameWidth = 29;
constexpr int kValueWidth = 10;
constexpr int kRatioWidth = 9;
constexpr int kSpreadWidth = 19;
constexpr int kTargetWidth = 13;

// Four significant digits, without an exponent where people would not write one.
std::string number(double value) {
  char text[32];
  if (!std::isfinite(value)) {
    return "-";
  }
  if (value != 0 && std::abs(value) < 0.01) {
    std::snprintf(text, sizeof text, "%.6f", value);
  } else {
    const int digits = value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : 3;
    std::snprintf(text, sizeof text, "%.*f", digits, value);
  }
  return text;
}

std::string target_of(const RowDefinition& row) {
  switch (row.goal) {
    case Goal::kRatioAtLeast: return ">= " + number(row.target) + "x";
    case Goal::kRatioAtMost: return "<= " + number(row.target) + "x";
    case Goal::kOursAtMost: return "<= " + number(row.target) + " " + row.unit;
    case Goal::kOursAtLeast: return ">= " + number(row.target) + " " + row.unit;
    case Goal::kReported: return "";
  }
  return "";
}

const char* name_of(Goal goal) {
  switch (goal) {
    case Goal::kRatioAtLeast: return "ratio at least";
    case Goal::kRatioAtMost: return "ratio at most";
    case Goal::kOursAtMost: return "ours at most";
    case Goal::kOursAtLeast: return "ours at least";
    case Goal::kReported: return "none";
  }
  return "";
}

nlohmann::ordered_json to_json(const Outcome& outcome, bool smoke) {
  const auto range = [](const Spread& spread) {
    return nlohmann::ordered_json::array({spread.min, spread.max});
  };
  return {{"name", outcome.row.name},
          {"unit", outcome.row.unit},
          {"ours", outcome.ours.median},
          {"other", outcome.other.median},
          {"other_name", outcome.other_name},
          {"ratio", outcome.ratio.median},
          {"target", outcome.row.target},
          {"goal", name_of(outcome.row.goal)},
          {"better", more_is_better(outcome.row.goal) ? "more" : "less"},
          {"spread", range(outcome.ratio)},
          {"spread_ours", range(outcome.ours)},
          {"spread_other", range(outcome.other)},
          {"pairs", outcome.pairs},
          {"met", outcome.met},
          {"scored", outcome.scored},
          {"smoke", smoke},
          {"question", outcome.row.question}};
}

}  // namespace

void print_rows(const std::vector<RowDefinition>& rows) {
  for (const RowDefinition& row : rows) {
    std::printf("%-*s %-*s %s\n", kNameWidth, row.name, kTargetWidth, target_of(row).c_str(),
                row.question);
  }
}

void print_header() {
  std::printf("%-*s %*s %*s %-5s %*s %-*s %-*s %-4s %s\n", kNameWidth, "row", kValueWidth, "ours",
              kValueWidth, "other", "unit", kRatioWidth, "ratio", kSpreadWidth, "min..max",
              kTargetWidth, "target", "met", "other is");
}

void print_outcome(const Outcome& outcome) {
  const std::string spread = std::isfinite(outcome.ratio.median)
                                 ? number(outcome.ratio.min) + ".." + number(outcome.ratio.max)
                                 : "-";
  std::printf("%-*s %*s %*s %-5s %*s %-*s %-*s %-4s %s\n", kNameWidth, outcome.row.name,
              kValueWidth, number(outcome.ours.median).c_str(), kValueWidth,
              number(outcome.other.median).c_str(), outcome.row.unit, kRatioWidth,
              number(outcome.ratio.median).c_str(), kSpreadWidth, spread.c_str(), kTargetWidth,
              outcome.scored ? target_of(outcome.row).c_str() : "",
              !outcome.scored ? "-"
              : outcome.met   ? "yes"
                              : "no",
              outcome.other_name.c_str());
  std::fflush(stdout);
}

void print_skipped(const RowDefinition& row, const std::string& reason) {
  std::printf("%-*s skipped: %s\n", kNameWidth, row.name, reason.c_str());
  std::fflush(stdout);
}

void print_failed(const RowDefinition& row, const std::string& reason) {
  std::printf("%-*s failed: %s\n", kNameWidth, row.name, reason.c_str());
  std::fflush(stdout);
}

void print_footer(const std::vector<Outcome>& outcomes) {
  const auto scored = std::count_if(outcomes.begin(), outcomes.end(),
                                    [](const Outcome& outcome) { return outcome.scored; });
  const auto met = std::count_if(outcomes.begin(), outcomes.end(), [](const Outcome& outcome) {
    return outcome.scored && outcome.met;
  });
  std::printf(
      "medians of interleaved pairs; ratio = ours / other, its whole range beside it.\n"
      "target >= : more is better; <= : less is better.\n"
      "a line without a target is another peer, a limit, or a figure that has none.\n"
      "%d of %d targets met. A missed target is a figure, not a failure of this run.\n",
      static_cast<int>(met), static_cast<int>(scored));
}

Status write_json(const std::string& path, const std::vector<Outcome>& outcomes, bool smoke) {
  auto array = nlohmann::ordered_json::array();
  for (const Outcome& outcome : outcomes) {
    array.push_back(to_json(outcome, smoke));
  }
  std::ofstream file(path, std::ios::trunc);
  file << array.dump(2) << '\n';
  file.close();
  if (!file) {
    return system_error(errno, "write the JSON file");
  }
  return {};
}

}  // namespace keel::bench
