#include "ail.h"

#include <new>
#include <utility>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {
namespace {

// Empty buckets that are kept for the next checkpoints.
constexpr std::size_t kMostSpares = 16;

enum class Cleared : std::uint8_t { kNo, kYes, kTracked };

constexpr std::uint32_t kBusy = ItemState::kPins | ItemState::kHeld;

// Clears the state of an item that the caller holds, to `left`: his hold, or nothing. If a
// checkpoint has it, or it is not to leave, ends his hold. A tracked one only if `locked`. In one
// step: it may be committed at any time.
Cleared clear_state(LogItem& item, bool if_wanted, bool locked, std::uint32_t left) {
  Cleared cleared = Cleared::kNo;
  (void)ItemAccess::change_state(item, [&](std::uint32_t now) {
    const bool stays =
        (now & ItemState::kPins) != 0 || (if_wanted && (now & ItemState::kReleaseWanted) == 0);
    const bool may_clear = locked || (now & ItemState::kTracked) == 0;
    cleared = stays ? Cleared::kNo : may_clear ? Cleared::kYes : Cleared::kTracked;
    return stays ? now & ~ItemState::kHeld : may_clear ? left : now;
  });
  return cleared;
}

}  // namespace

Ail::~Ail() {
  TurnLock lock(mutex_);
  KEEL_CHECK(walks_ == nullptr, "the AIL dies under a walk");
  while (front_ != nullptr) {
    Bucket* bucket = front_;
    KEEL_CHECK(bucket->items == 0, "the AIL dies with items in it", bucket->items);
    front_ = bucket->next;
    if (!is_own(bucket) && bucket != &reserve_) {
      os().metadata_free(bucket);
    }
  }
  while (spares_ != nullptr) {
    os().metadata_free(std::exchange(spares_, spares_->next));
  }
}

Bucket* Ail::make_bucket() {
  {
    TurnLock lock(mutex_);
    if (spares_ != nullptr) {
      --spare_count_;
      return std::exchange(spares_, spares_->next);
    }
  }
  if (void* memory = os().metadata_allocate(sizeof(Bucket)); memory != nullptr) {
    return ::new (memory) Bucket;
  }
  TurnLock lock(mutex_);
  for (std::size_t i = 0; i < own_.size(); ++i) {
    if (!std::exchange(own_taken_[i], true)) {
      return &own_[i];
    }
  }
  return nullptr;
}

void Ail::give_bucket(Bucket* bucket) {
  if (bucket != nullptr) {
    TurnLock lock(mutex_);
    keep_or_free(bucket);
  }
}

Bucket* Ail::publish(Bucket* memory, Lsn lsn, const format::CheckpointId& predecessor) {
  TurnLock lock(mutex_);
  if (memory == nullptr && back_ != nullptr) {
    ++back_->holds;
    return back_;
  }
  Bucket* bucket = memory != nullptr ? memory : &reserve_;
  *bucket = Bucket{};
  bucket->lsn = lsn;
  bucket->predecessor = predecessor;
  bucket->holds = 1;
  KEEL_CHECK(back_ == nullptr || back_->lsn < lsn, "buckets out of order", lsn.value());
  (back_ != nullptr ? back_->next : front_) = bucket;
  bucket->previous = back_;
  back_ = bucket;
  drop_if_done(bucket->previous);
  return bucket;
}

void Ail::enter(Bucket& bucket, LogVector* first, const LogVector* end) {
  TurnLock lock(mutex_);
  const HoldTimer timer(max_hold_ns_);
  for (LogVector* vector = first; vector != end; vector = vector->next) {
    LogItem& item = *vector->item;
    const bool tracked = ItemAccess::bucket(item) != nullptr;
    if (vector->cancelled) {
      unlink_tracked(item);
      ItemAccess::state(item).fetch_and(~ItemState::kTracked, std::memory_order_acq_rel);
    } else if (!tracked) {
      link(bucket, item);
      ItemAccess::state(item).fetch_or(ItemState::kTracked, std::memory_order_acq_rel);
    } else if (!vector->ordered && ItemAccess::bucket(item) != &bucket) {
      // (An ordered item is not in this checkpoint: what an earlier one holds of it must stay in
      // the log until it is home. And one that is in the bucket already, which this one joins,
      // stays where it is: a walk that stands at it, the last one, would pass it over.)
      Bucket* left = ItemAccess::bucket(item);
      unlink(item);
      link(bucket, item);
      drop_if_done(left);
    }
  }
}

void Ail::adopt(Bucket& bucket, LogItem& item) {
  TurnLock lock(mutex_);
  link(bucket, item);
  ItemAccess::state(item).fetch_or(ItemState::kTracked, std::memory_order_acq_rel);
}

void Ail::let_go(Bucket& bucket) {
  TurnLock lock(mutex_);
  KEEL_CHECK(bucket.holds > 0, "a bucket let go twice");
  --bucket.holds;
  drop_if_done(&bucket);
}

// Marked as well as held, so that no checkpoint takes it up again (try_pin) before it is out.
bool Ail::forget(LogItem& item, bool in_release) {
  bool gone = false;
  const bool is_held = ItemAccess::change_state(item, [&](std::uint32_t now) {
    gone = now == 0 || (in_release && now == ItemState::kHeld);
    const std::uint32_t hold = (now & kBusy) == 0 ? ItemState::kHeld : 0;
    return gone ? now : now | ItemState::kReleaseWanted | hold;
  });
  return gone || (is_held && take_out(item, true, 0));
}

bool Ail::leave(LogItem& item, bool if_wanted) {
  return take_out(item, if_wanted, ItemState::kHeld);
}

bool Ail::take_out(LogItem& item, bool if_wanted, std::uint32_t left) {
  Cleared cleared = clear_state(item, if_wanted, false, left);
  if (cleared == Cleared::kTracked) {
    TurnLock lock(mutex_);
    cleared = clear_state(item, if_wanted, true, left);
    if (cleared == Cleared::kYes) {
      unlink_tracked(item);
    }
  }
  return cleared == Cleared::kYes;
}

Ail::Removed Ail::remove_first() {
  TurnLock lock(mutex_);
  for (Bucket* bucket = front_; bucket != nullptr; bucket = bucket->next) {
    if (LogItem* item = bucket->first; item != nullptr) {
      unlink_tracked(*item);
      return {item, hold_untracked(*item)};
    }
  }
  return {};
}

// Of an item that was unlinked: it is not in the AIL any more, and the caller's, unless something
// holds it. In one step, after which it is not touched if it is not the caller's.
bool Ail::hold_untracked(LogItem& item) {
  return ItemAccess::change_state(item, [](std::uint32_t now) {
    const std::uint32_t left = now & ~ItemState::kTracked;
    return (left & ItemState::kPins) != 0 ? left : ItemState::taken(left);
  });
}

Ail::Walk::Walk(Ail& ail, Lsn limit) : ail_(ail), limit_(limit) {
  TurnLock lock(ail.mutex_);
  go_to(ail.front_);
  next_ = std::exchange(ail.walks_, this);
}

Ail::Walk::~Walk() {
  TurnLock lock(ail_.mutex_);
  Walk** at = &ail_.walks_;
  while (*at != this) {
    at = &(*at)->next_;
  }
  *at = next_;
}

void Ail::Walk::go_to(Bucket* bucket) {
  bucket_ = bucket;
  item_ = bucket != nullptr ? bucket->first : nullptr;
}

Ail::Batch Ail::Walk::hold_next() {
  Batch batch;
  TurnLock lock(ail_.mutex_);
  const HoldTimer timer(ail_.max_hold_ns_);
  for (; bucket_ != nullptr && bucket_->lsn < limit_; go_to(bucket_->next)) {
    for (; item_ != nullptr; item_ = ItemAccess::ail_next(*item_)) {
      if (batch.count == kBatch || batch.pinned == kBatch) {
        return batch;
      }
      hold(*item_, batch);
    }
  }
  batch.is_last = true;
  return batch;
}

void Ail::hold(LogItem& item, Batch& batch) {
  bool busy = false;
  // Whoever wants to release it finds it held, or holds it.
  const bool is_held = ItemAccess::change_state(item, [&busy](std::uint32_t now) {
    busy = (now & kBusy) != 0;
    return busy ? now : now | ItemState::kHeld;
  });
  if (is_held) {
    batch.items[batch.count++] = &item;
  }
  batch.pinned += busy ? 1 : 0;
}

TailPosition Ail::tail() const {
  TurnLock lock(mutex_);
  return front_ == nullptr ? TailPosition{}
                           : TailPosition{false, front_->lsn, front_->predecessor, front_->items};
}

// At the back: the oldest stand in front.
void Ail::link(Bucket& bucket, LogItem& item) {
  ItemAccess::bucket(item) = &bucket;
  ItemAccess::ail_next(item) = nullptr;
  ItemAccess::ail_previous(item) = bucket.last;
  (bucket.last != nullptr ? ItemAccess::ail_next(*bucket.last) : bucket.first) = &item;
  bucket.last = &item;
  ++bucket.items;
}

void Ail::unlink(LogItem& item) {
  Bucket*& bucket = ItemAccess::bucket(item);
  LogItem* before = ItemAccess::ail_previous(item);
  LogItem* after = ItemAccess::ail_next(item);
  for (Walk* walk = walks_; walk != nullptr; walk = walk->next_) {
    if (walk->item_ == &item) {
      walk->item_ = after;
    }
  }
  (before != nullptr ? ItemAccess::ail_next(*before) : bucket->first) = after;
  (after != nullptr ? ItemAccess::ail_previous(*after) : bucket->last) = before;
  --bucket->items;
  bucket = nullptr;
}

void Ail::unlink_tracked(LogItem& item) {
  if (Bucket* bucket = ItemAccess::bucket(item); bucket != nullptr) {
    unlink(item);
    // Relaxed, and no exchange: the lock is held.
    departures_.store(departures() + 1, std::memory_order_relaxed);
    drop_if_done(bucket);
  }
}

// Then also the one that was kept as the last of several, if it is alone now.
void Ail::drop_if_done(Bucket* bucket) {
  while (bucket != nullptr && bucket->items == 0 && bucket->holds == 0 &&
         (bucket != back_ || bucket == front_)) {
    for (Walk* walk = walks_; walk != nullptr; walk = walk->next_) {
      if (walk->bucket_ == bucket) {
        walk->go_to(bucket->next);
      }
    }
    (bucket->previous != nullptr ? bucket->previous->next : front_) = bucket->next;
    (bucket->next != nullptr ? bucket->next->previous : back_) = bucket->previous;
    keep_or_free(bucket);
    bucket = back_;
  }
}

void Ail::keep_or_free(Bucket* bucket) {
  if (is_own(bucket)) {
    own_taken_[static_cast<std::size_t>(bucket - own_.data())] = false;
    return;
  }
  if (bucket == &reserve_) {
    return;
  }
  if (spare_count_ == kMostSpares) {
    os().metadata_free(bucket);
    return;
  }
  bucket->next = spares_;
  spares_ = bucket;
  ++spare_count_;
}

std::uint64_t Ail::audit() const {
  TurnLock lock(mutex_);
  Lsn last{};
  const Bucket* final_bucket = nullptr;
  std::uint64_t memory = 0;
  for (const Bucket* bucket = front_; bucket != nullptr; bucket = bucket->next) {
    KEEL_CHECK(bucket == front_ || bucket->lsn > last, "buckets out of order", bucket->lsn.value());
    KEEL_CHECK(bucket->previous == final_bucket, "a bucket's neighbours", bucket->lsn.value());
    KEEL_CHECK(bucket->items != 0 || bucket->holds != 0 || (bucket == back_ && bucket != front_),
               "a bucket that is done", bucket->lsn.value());
    last = bucket->lsn;
    std::size_t items = 0;
    for (LogItem* item = bucket->first; item != nullptr; item = ItemAccess::ail_next(*item)) {
      KEEL_CHECK(ItemAccess::bucket(*item) == bucket && item->tracked(),
                 "item in a foreign bucket");
      const LogVector* shadow = ItemAccess::shadow(*item);
      memory += shadow != nullptr ? shadow->capacity_bytes : 0;
      ++items;
    }
    KEEL_CHECK(items == bucket->items, "bucket count", items, bucket->items);
    final_bucket = bucket;
  }
  KEEL_CHECK(final_bucket == back_, "back of the AIL");
  return memory;
}

}  // namespace keel
