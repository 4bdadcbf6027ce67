// What a row of the scoreboard is, and how a file puts its rows there.
//
// A row is one small file: a RowRegistration of its definition, and a prepare() that builds both
// sides. Ours and the other are functions that take one sample each; the runner calls them in turn.
// Rows that one measurement feeds are a family: see family.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "keel/base/result.h"

namespace keel::bench {

// What the target is held against, and which way is better.
enum class Goal : std::uint8_t {
  kRatioAtLeast,  // ours / other; more is better
  kRatioAtMost,   // ours / other; less is better
  kOursAtMost,    // ours itself, in the row's unit; less is better
  kOursAtLeast,   // likewise; more is better
  kReported,      // nothing: a figure to know; less is better
};

// How the run was asked for.
struct Setting {
  std::string dir;     // for files, on the file system to be measured
  bool full = false;   // every peer, not only the best
  bool smoke = false;  // as small as can be: proves that the row runs, its figures mean nothing
  int pairs = 0;       // as asked for; 0: what suits the row
};

using Sample = std::function<Result<double>()>;

struct Peer {
  std::string name;
  Sample sample;
};

// Both sides, ready to be measured. The functions own what they need.
struct Comparison {
  Sample ours;
  std::vector<Peer> peers;  // the best first; the others are measured only with --full
};

struct FamilyDefinition;

struct RowDefinition {
  const char* name;  // begins with memory., journal. or buffers.
  const char* unit;
  const char* question;  // one line: what exactly is measured
  Goal goal;
  double target;
  Result<Comparison> (*prepare)(const Setting& setting);  // nullptr for a row of a family
  const FamilyDefinition* family = nullptr;
  const char* figure = nullptr;   // of the family's samples
  const char* against = nullptr;  // that side of the family, a limit too; nullptr: the best peer
};

// Adds a row. Make one at namespace scope, in an anonymous namespace.
class RowRegistration {
 public:
  explicit RowRegistration(const RowDefinition& definition);
};

[[nodiscard]] bool more_is_better(Goal goal);

// All rows, by name.
[[nodiscard]] std::vector<RowDefinition> all_rows();

}  // namespace keel::bench
