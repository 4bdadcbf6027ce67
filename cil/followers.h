// Followers: who reads the live log, where each stands, and how far the tail may move for them.
//
// I1 A position only moves forward. What stands at and beyond the position of one that holds is not
//    written over.
// I2 One that the tail passes is dropped first, and the space that the tail frees is reused only
//    after that. So a reader that is not dropped after a read has read what it was to read.
// I3 A follower holds the tail no further back than its limit, and than leaves room for who waits.
// Locks: one (kJournalFollow), over the list. add() needs the state lock too, so that the tail
// stands still from the choice of a position to its being held.
#pragma once

#include <cstdint>

#include "keel/base/mutex.h"
#include "log/chain_reader.h"

namespace keel {

class Followers {
 public:
  // One follower's part; it is in the list from add() to remove().
  struct Place {
    ChainPosition position{};  // under the lock
    std::uint64_t most_behind_bytes = 0;
    bool dropped = false;  // under the lock
    Place* next = nullptr;
  };

  ~Followers();

  void add(Place& place) KEEL_EXCLUDES(mutex_);
  void remove(Place& place) KEEL_EXCLUDES(mutex_);
  // It stands there from now on. False if it was dropped: what it has read may be anything.
  [[nodiscard]] bool advance(Place& place, const ChainPosition& position) KEEL_EXCLUDES(mutex_);

  // Moves `tail`, whose predecessor is given, back to the first place that may hold it. `newest` is
  // where the newest complete checkpoint ends; none holds it further back from there than
  // `most_bytes`.
  void hold(Lsn& tail, format::CheckpointId& predecessor, Lsn newest,
            std::uint64_t most_bytes) const KEEL_EXCLUDES(mutex_);
  // The tail moves there: drops all that stand before it.
  void drop_below(Lsn tail) KEEL_EXCLUDES(mutex_);
  // Nothing is written any more, so nothing needs to be held.
  void close() KEEL_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_{LockRank::kJournalFollow};
  Place* first_ KEEL_GUARDED_BY(mutex_) = nullptr;
  bool closed_ KEEL_GUARDED_BY(mutex_) = false;
};

}  // namespace keel
