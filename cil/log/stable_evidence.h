// StableEvidence: what the records of a log say was stable, and what was under way.
//
// A record says that all below its stable_lsn was stable when it was built; its checkpoint and the
// one that it names give sequences to LSNs. So the newest stable sequence is that of the last
// checkpoint known to end at or below the highest such LSN, and what ends beyond was in flight.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "keel/base/units.h"
#include "log/format.h"

namespace keel {

class StableEvidence {
 public:
  explicit StableEvidence(const format::StateSlot& state) : stable_(state.stable_lsn) {
    note(state.tail_predecessor);
  }

  // A checkpoint of which a proven record tells.
  void note(const format::CheckpointId& id) {
    constexpr std::uint64_t kMost = format::kCountLimit;  // no sum below wraps
    if (id.sequence == 0 || id.sequence >= kMost || id.start_lsn >= kMost || id.bytes >= kMost) {
      return;
    }
    newest_ = std::max(newest_, Sequence(id.sequence));
    const Lsn end(id.start_lsn + id.bytes);
    if (end <= stable_) {
      stable_sequence_ = std::max(stable_sequence_, Sequence(id.sequence));
    } else if (!is_known(id.sequence) && count_ < in_flight_.size()) {
      in_flight_[count_++] = {end, Sequence(id.sequence)};
    }
  }

  // All below `lsn` was stable.
  void vouch(Lsn lsn) {
    stable_ = std::max(stable_, lsn);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (in_flight_[i].end <= stable_) {
        stable_sequence_ = std::max(stable_sequence_, in_flight_[i].sequence);
      } else {
        in_flight_[kept++] = in_flight_[i];
      }
    }
    count_ = kept;
  }

  // As both, of a proven record.
  void note(const format::RecordHeader& header, Lsn vouched) {
    const format::CheckpointId& before = header.predecessor;
    note(before);
    note({header.incarnation, header.sequence, before.start_lsn + before.bytes,
          header.checkpoint_bytes});
    vouch(vouched);
  }

  [[nodiscard]] Lsn stable() const { return stable_; }
  [[nodiscard]] Sequence stable_sequence() const { return stable_sequence_; }
  [[nodiscard]] Sequence newest() const { return newest_; }
  // Checkpoints that something tells of and that are not known to have been stable; at most as many
  // as are kept.
  [[nodiscard]] std::size_t in_flight() const { return count_; }

 private:
  // More than any journal has under way; what a hostile log shows beyond is not counted.
  static constexpr std::size_t kMostInFlight = 64;
  struct Known {
    Lsn end{};
    Sequence sequence{};
  };

  [[nodiscard]] bool is_known(std::uint64_t sequence) const {
    return std::any_of(in_flight_.begin(), in_flight_.begin() + count_,
                       [&](const Known& known) { return known.sequence.value() == sequence; });
  }

  Lsn stable_;
  Sequence stable_sequence_{};
  Sequence newest_{};
  std::array<Known, kMostInFlight> in_flight_{};
  std::size_t count_ = 0;
};

}  // namespace keel
