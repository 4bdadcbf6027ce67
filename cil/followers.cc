#include "followers.h"

#include <algorithm>

#include "keel/base/check.h"

namespace keel {

Followers::~Followers() {
  MutexLock lock(mutex_);
  KEEL_CHECK(first_ == nullptr, "a follower outlives its journal");
}

void Followers::add(Place& place) {
  MutexLock lock(mutex_);
  place.next = first_;
  first_ = &place;
}

void Followers::remove(Place& place) {
  MutexLock lock(mutex_);
  Place** at = &first_;
  while (*at != &place) {
    KEEL_CHECK(*at != nullptr, "a follower that is not in the list");
    at = &(*at)->next;
  }
  *at = place.next;
}

bool Followers::advance(Place& place, const ChainPosition& position) {
  MutexLock lock(mutex_);
  if (!place.dropped) {
    KEEL_CHECK(position.lsn >= place.position.lsn, "a follower moves forward", position.lsn.value(),
               place.position.lsn.value());
    place.position = position;
  }
  return !place.dropped;
}

void Followers::hold(Lsn& tail, format::CheckpointId& predecessor, Lsn newest,
                     std::uint64_t most_bytes) const {
  MutexLock lock(mutex_);
  for (const Place* place = first_; place != nullptr && !closed_; place = place->next) {
    const Lsn at = place->position.lsn;
    if (!place->dropped && at < tail &&
        newest <= at + Bytes(std::min(place->most_behind_bytes, most_bytes))) {
      tail = at;
      predecessor = place->position.predecessor;
    }
  }
}

void Followers::drop_below(Lsn tail) {
  MutexLock lock(mutex_);
  for (Place* place = first_; place != nullptr && !closed_; place = place->next) {
    place->dropped = place->dropped || place->position.lsn < tail;
  }
}

void Followers::close() {
  MutexLock lock(mutex_);
  closed_ = true;
}

}  // namespace keel
