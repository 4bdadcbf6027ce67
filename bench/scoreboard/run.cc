#include "scoreboard/run.h"

#include <unistd.h>

#include <cstdio>

#include "scoreboard/report.h"

namespace keel::bench {
namespace {

constexpr int kDefaultPairs = 5;

}  // namespace

Progress::Progress() : on_(isatty(STDERR_FILENO) == 1) {}

void Progress::show(const std::string& text) const {
  if (on_) {
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
  }
}

bool Run::all(const std::vector<RowDefinition>& rows) {
  std::size_t failed = 0;
  if (!setting_.smoke) {
    print_header();
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const RowDefinition& row = rows[i];
    title_ = std::to_string(i + 1) + "/" + std::to_string(rows.size()) + " " + row.name;
    progress_.show(title_ + ": preparing");
    const Status status = row.family != nullptr ? of_family(row) : single(row);
    if (!status) {
      progress_.clear();
      print_failed(row, status.error().message());
      ++failed;
    }
  }
  progress_.clear();
  if (setting_.smoke) {
    std::printf("smoke run: %zu of %zu rows failed; its figures would mean nothing\n", failed,
                rows.size());
  } else {
    print_footer(outcomes_);
  }
  return failed == 0;
}

Status Run::single(const RowDefinition& row) {
  auto comparison = row.prepare(setting_);
  if (!comparison) {
    return comparison.error();
  }
  for (const Peer& peer : comparison->peers) {
    const auto progress = [&](int pair, int pairs) {
      progress_.show(title_ + " against " + peer.name + ": " +
                     (pair == 0 ? std::string("warming up")
                                : "pair " + std::to_string(pair) + "/" + std::to_string(pairs)));
    };
    const int pairs = setting_.pairs > 0 ? setting_.pairs : kDefaultPairs;
    auto outcome = measure(row, comparison->ours, peer, pairs, progress);
    if (!outcome) {
      return outcome.error();
    }
    progress_.clear();
    keep(std::move(*outcome));
    if (!setting_.full) {
      break;
    }
  }
  return {};
}

Status Run::of_family(const RowDefinition& row) {
  auto at = families_.find(row.family);
  if (at == families_.end()) {
    at = families_.emplace(row.family, measure_family(*row.family)).first;
  }
  progress_.clear();
  const Measured& measured = at->second;
  if (!measured.skipped.empty()) {
    print_skipped(row, measured.skipped);
    return {};
  }
  if (!measured.runs) {
    return measured.runs.error();
  }
  auto outcomes = measured.runs->outcomes(row, setting_.full);
  if (!outcomes) {
    print_skipped(row, outcomes.error().what);
    return {};
  }
  for (Outcome& outcome : *outcomes) {
    keep(std::move(outcome));
  }
  return {};
}

Run::Measured Run::measure_family(const FamilyDefinition& family) const {
  auto study = family.prepare(setting_);
  if (!study) {
    return {"", study.error()};
  }
  if (!study->skipped.empty()) {
    return {study->skipped, FamilyRuns{}};
  }
  const int rounds = setting_.pairs > 0 ? setting_.pairs : study->rounds;
  const auto progress = [this](const std::string& text) { progress_.show(title_ + text); };
  return {"", FamilyRuns::measure(*study, rounds, progress)};
}

void Run::keep(Outcome outcome) {
  if (!setting_.smoke) {
    print_outcome(outcome);
  }
  outcomes_.push_back(std::move(outcome));
}

}  // namespace keel::bench
