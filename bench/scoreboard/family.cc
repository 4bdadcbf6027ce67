#include "scoreboard/family.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <list>

namespace keel::bench {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Ratio of two figures of which either may be 0, as a count of page faults is.
double ratio_of(double ours, double theirs) { return theirs == 0 ? kNone : ours / theirs; }

Spread spread_or_none(const std::vector<double>& values) {
  return values.empty() ? Spread{kNone, kNone, kNone} : spread_of(values);
}

std::vector<double> values_of(const std::vector<Figures>& runs, const char* figure) {
  std::vector<double> values;
  for (const Figures& run : runs) {
    if (const auto at = run.find(figure); at != run.end()) {
      values.push_back(at->second);
    }
  }
  return values;
}

}  // namespace

FamilyRegistration::FamilyRegistration(FamilyDefinition definition) {
  // A function's static and a list: rows point at their family.
  static std::list<FamilyDefinition> families;
  const FamilyDefinition& family = families.emplace_back(std::move(definition));
  for (RowDefinition row : family.rows) {
    row.family = &family;
    RowRegistration{row};
  }
}

Result<FamilyRuns> FamilyRuns::measure(const Study& study, int rounds,
                                       const std::function<void(const std::string&)>& progress) {
  FamilyRuns runs;
  for (const FigurePeer& peer : study.peers) {
    runs.peers_.push_back({peer.name, peer.is_limit, {}, {}});
  }
  const std::size_t pairs = std::max<std::size_t>(study.peers.size(), 1);
  for (int round = 1; round <= rounds; ++round) {
    for (std::size_t i = 0; i < pairs; ++i) {
      progress((i < study.peers.size() ? " against " + study.peers[i].name : "") + ": round " +
               std::to_string(round) + "/" + std::to_string(rounds));
      if (auto status = runs.run_pair(study, i, i == 0 || !study.ours_once); !status) {
        return status.error();
      }
    }
  }
  return runs;
}

Status FamilyRuns::run_pair(const Study& study, std::size_t peer, bool run_ours) {
  if (peer < peers_.size() && peers_[peer].dropped) {
    return {};
  }
  if (run_ours) {
    auto ours = study.ours();
    if (!ours) {
      return ours.error();
    }
    ours_.push_back(std::move(*ours));
  }
  if (peer == peers_.size()) {
    return {};
  }
  if (auto theirs = study.peers[peer].sample()) {
    peers_[peer].ours.push_back(ours_.back());
    peers_[peer].theirs.push_back(std::move(*theirs));
  } else {
    peers_[peer].dropped = true;
    std::fprintf(stderr, "\nscoreboard: %s dropped: %s\n", study.peers[peer].name.c_str(),
                 theirs.error().message().c_str());
  }
  return {};
}

std::vector<double> FamilyRuns::ours_of(const char* figure) const {
  return values_of(ours_, figure);
}

Outcome FamilyRuns::against(const RowDefinition& row, const PeerRuns& peer) const {
  const std::vector<double> ours = values_of(peer.ours, row.figure);
  const std::vector<double> theirs = values_of(peer.theirs, row.figure);
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
    if (const double ratio = ratio_of(ours[i], theirs[i]); !std::isnan(ratio)) {
      ratios.push_back(ratio);
    }
  }
  Outcome outcome{row,
                  peer.name,
                  static_cast<int>(theirs.size()),
                  spread_or_none(ours_of(row.figure)),
                  spread_or_none(theirs),
                  spread_or_none(ratios),
                  false,
                  false};
  outcome.met = is_met(row, outcome.ours, outcome.ratio);
  return outcome;
}

Result<std::vector<Outcome>> FamilyRuns::against_side(const RowDefinition& row) const {
  for (const PeerRuns& peer : peers_) {
    if (peer.name == row.against && !values_of(peer.theirs, row.figure).empty()) {
      std::vector<Outcome> outcomes{against(row, peer)};
      outcomes.front().scored = row.goal != Goal::kReported;
      return outcomes;
    }
  }
  return Error{Errc::kNotFound, 0, "there is nothing to hold it against here", 0};
}

Result<std::vector<Outcome>> FamilyRuns::outcomes(const RowDefinition& row, bool full) const {
  if (ours_of(row.figure).empty()) {
    return Error{Errc::kNotFound, 0, "ours gives no such figure here", 0};
  }
  if (row.against != nullptr) {
    return against_side(row);
  }
  std::vector<Outcome> peers, limits;
  for (const PeerRuns& peer : peers_) {
    if (!values_of(peer.theirs, row.figure).empty()) {
      (peer.is_limit ? limits : peers).push_back(against(row, peer));
    }
  }
  std::sort(peers.begin(), peers.end(), [&row](const Outcome& a, const Outcome& b) {
    return more_is_better(row.goal) ? a.other.median > b.other.median
                                    : a.other.median < b.other.median;
  });
  if (peers.empty()) {
    peers.push_back(against(row, {"-", false, {}, {}, false}));
    peers.front().pairs = static_cast<int>(ours_.size());
  }
  peers.front().scored = row.goal != Goal::kReported;
  if (!full) {
    peers.resize(1);
  }
  peers.insert(peers.end(), limits.begin(), limits.end());
  return peers;
}

}  // namespace keel::bench
