// Bounded lives: every sequence of a few operations on a small log, as a number; what it does; and
// every state of the disk in which a power cut could leave it, with what had been promised by then.
//
// All I/O of such a life is done by the one thread that calls the journal, so the same number gives
// the same moments: those of a life of k operations begin where the life of its first k-1 ends.
// That the journal's own threads keep out is checked.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "keel/cil/intent_item.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "keel/cil/range_item.h"
#include "support/sim_disk.h"

namespace keel_test {

// What a client has: three objects, a stretch of memory, and work begun.
struct ClientState {
  static constexpr std::size_t kObjects = 3;
  std::array<std::string, kObjects> objects;  // empty: gone
  std::string memory;
  std::set<std::uint64_t> intents;
  bool operator==(const ClientState&) const = default;

  // As recovery hands it over. False: something that nobody logged.
  [[nodiscard]] bool apply(const keel::RecoveredCheckpoint& checkpoint);
};

enum class Operation : std::uint8_t {
  kWriteSmall,   // object 0, less than a sector
  kWriteBlocks,  // object 1, two whole blocks
  kWritePart,    // a part of object 2
  kErase,        // object 0
  kWriteTwo,     // objects 0 and 1 and the memory, in one transaction
  kWriteRange,   // a part of the memory
  kBegin,        // an intent
  kFinish,       // the oldest one that is open, if there is one
  kForce,        // everything
  kGoHome,       // all that is stable is written home and released
  kReopen,       // close in order, open again
  kPowerCut,     // all that no flush covers is lost; open again
  kCount,
};
constexpr std::uint64_t kOperations = static_cast<std::uint64_t>(Operation::kCount);

enum class LogBase : std::uint8_t {
  kFresh,     // as create_log() leaves it
  kWrap,      // on its second lap, the head one block before the wrap
  kLeftover,  // objects and an intent in it, killed in a write of which the end is there
  kCount,
};
constexpr std::uint64_t kBases = static_cast<std::uint64_t>(LogBase::kCount);

struct Workload {
  LogBase base = LogBase::kFresh;
  std::vector<Operation> operations;

  // All of at most `most` operations, on each base.
  [[nodiscard]] static std::uint64_t count(unsigned most);
  [[nodiscard]] static Workload at(std::uint64_t index);
  [[nodiscard]] std::string name() const;
};

// A disk at one moment: what is stable, what is written but not flushed or under way; and what had
// been promised of it. `history` and `home` of the life.
struct BoundedMoment {
  keel::SimImage log;
  std::uint64_t forced = 0;   // highest sequence for which a force had returned
  std::size_t histories = 0;  // entries of the history by then
  ClientState home;           // but for the intents, which have none
};

struct BoundedLife {
  struct Entry {
    std::uint64_t sequence;
    ClientState state;  // when that sequence is the last one
  };
  std::vector<Entry> history;  // power cuts cut it, so that it ascends
  std::vector<BoundedMoment> moments;
  std::string fault;  // what went wrong while it lived

  // What is there if `sequence` is the last that survived a crash at the moment.
  [[nodiscard]] const ClientState& expected(const BoundedMoment& moment,
                                            std::uint64_t sequence) const;
};

// Lives the workload, to its close. Moments are those of its last operation (of none: the first
// opening) and its close.
[[nodiscard]] BoundedLife live(const Workload& workload);

}  // namespace keel_test
