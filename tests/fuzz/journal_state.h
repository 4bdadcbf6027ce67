// What a journal's items are at one moment, as the model of the journal fuzzer has it, and what a
// log makes of such a state.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "keel/cil/recovery.h"

namespace keel_fuzz {

inline constexpr std::size_t kObjects = 6;
// One ends within a chunk, one is a single chunk, one has runs of whole blocks.
inline constexpr std::array<std::size_t, 3> kRangeBytes{6000, 128, 20000};

struct JournalState {
  std::array<std::optional<std::string>, kObjects> objects{};  // nullopt: it is not there
  std::array<std::string, kRangeBytes.size()> ranges{};
  std::map<std::uint64_t, std::string> intents{};  // payloads of those that are open, by id

  bool operator==(const JournalState&) const = default;
};

// A log as recovery hands it over, applied to what is home.
class JournalReplay {
 public:
  // `taken_back`: intents that no log may show, their dones having joined the same checkpoints.
  JournalReplay(const JournalState& home, const std::set<std::uint64_t>& taken_back);

  void apply(const keel::RecoveredCheckpoint& checkpoint);
  [[nodiscard]] const JournalState& state() const { return state_; }
  // Those that are open, in the log's order.
  [[nodiscard]] const std::vector<std::uint64_t>& intents_in_order() const { return in_order_; }

 private:
  void apply_object(const keel::RecoveredObject& object);
  void apply_range(const keel::RecoveredRange& range);
  void apply_intent(const keel::RecoveredIntent& intent);
  void apply_done(const keel::RecoveredDone& done);

  JournalState state_;
  const std::set<std::uint64_t>& taken_back_;
  std::set<std::uint64_t> done_;
  std::vector<std::uint64_t> in_order_;
};

}  // namespace keel_fuzz
