#include "ail.h"

#include <new>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {
namespace {
// Items moved in one hold of the lock: long enough to amortise it, microseconds at most.
constexpr int kBatch = 64;
}  // namespace

Ail::~Ail() {
  MutexLock lock(mutex_);
  while (front_ != nullptr) {
    Bucket* bucket = front_;
    KEEL_CHECK(bucket->items == 0, "the AIL dies with items in it", bucket->items);
    front_ = bucket->next;
    if (bucket != &reserve_) {
      os().metadata_free(bucket);
    }
  }
  if (spare_ != nullptr) {
    os().metadata_free(spare_);
  }
}

void Ail::prepare() {
  {
    MutexLock lock(mutex_);
    if (spare_ != nullptr) {
      return;
    }
  }
  void* memory = os().metadata_allocate(sizeof(Bucket));
  if (memory == nullptr) {
    return;
  }
  auto* bucket = ::new (memory) Bucket;
  MutexLock lock(mutex_);
  if (spare_ != nullptr) {
    // A release emptied a bucket meanwhile and left it here.
    os().metadata_free(bucket);
    return;
  }
  spare_ = bucket;
}

Bucket* Ail::publish(Lsn lsn, const format::CheckpointId& predecessor) {
  MutexLock lock(mutex_);
  drop_empty_front();
  if (spare_ == nullptr && back_ != nullptr) {
    ++back_->holds;
    return back_;
  }
  Bucket* bucket = spare_ != nullptr ? spare_ : &reserve_;
  spare_ = nullptr;
  *bucket = Bucket{};
  bucket->lsn = lsn;
  bucket->predecessor = predecessor;
  bucket->holds = 1;
  KEEL_CHECK(back_ == nullptr || back_->lsn < lsn, "buckets out of order", lsn.value());
  (back_ != nullptr ? back_->next : front_) = bucket;
  back_ = bucket;
  return bucket;
}

void Ail::fill(Bucket& bucket, LogVector* first) {
  while (first != nullptr) {
    MutexLock lock(mutex_);
    for (int i = 0; i < kBatch && first != nullptr; ++i, first = first->next) {
      // An ordered item is not in this checkpoint: what an earlier one holds of it must stay in the
      // log until it is home.
      if (first->layout.ordered && ItemAccess::bucket(*first->item) != nullptr) {
        continue;
      }
      unlink(*first->item);
      link(bucket, *first->item);
    }
  }
}

void Ail::let_go(Bucket& bucket) {
  MutexLock lock(mutex_);
  KEEL_CHECK(bucket.holds > 0, "a bucket let go twice");
  --bucket.holds;
  drop_empty_front();
}

void Ail::remove(LogItem& item) {
  MutexLock lock(mutex_);
  unlink(item);
  drop_empty_front();
}

LogItem* Ail::remove_first() {
  MutexLock lock(mutex_);
  for (Bucket* bucket = front_; bucket != nullptr; bucket = bucket->next) {
    if (LogItem* item = bucket->first; item != nullptr) {
      unlink(*item);
      drop_empty_front();
      return item;
    }
  }
  return nullptr;
}

TailPosition Ail::tail() const {
  MutexLock lock(mutex_);
  for (const Bucket* bucket = front_; bucket != nullptr; bucket = bucket->next) {
    if (bucket->items != 0 || bucket->holds != 0) {
      return {false, bucket->lsn, bucket->predecessor, bucket->items};
    }
  }
  return {};
}

void Ail::link(Bucket& bucket, LogItem& item) {
  ItemAccess::bucket(item) = &bucket;
  ItemAccess::ail_previous(item) = nullptr;
  ItemAccess::ail_next(item) = bucket.first;
  if (bucket.first != nullptr) {
    ItemAccess::ail_previous(*bucket.first) = &item;
  }
  bucket.first = &item;
  ++bucket.items;
}

void Ail::unlink(LogItem& item) {
  Bucket*& bucket = ItemAccess::bucket(item);
  if (bucket == nullptr) {
    return;
  }
  LogItem* before = ItemAccess::ail_previous(item);
  LogItem* after = ItemAccess::ail_next(item);
  (before != nullptr ? ItemAccess::ail_next(*before) : bucket->first) = after;
  if (after != nullptr) {
    ItemAccess::ail_previous(*after) = before;
  }
  --bucket->items;
  bucket = nullptr;
}

void Ail::drop_empty_front() {
  while (front_ != nullptr && front_->items == 0 && front_->holds == 0) {
    Bucket* bucket = front_;
    front_ = bucket->next;
    back_ = front_ == nullptr ? nullptr : back_;
    if (bucket == &reserve_) {
      continue;
    }
    if (spare_ == nullptr) {
      spare_ = bucket;
    } else {
      os().metadata_free(bucket);
    }
  }
}

void Ail::audit() const {
  MutexLock lock(mutex_);
  Lsn last{};
  const Bucket* final_bucket = nullptr;
  for (const Bucket* bucket = front_; bucket != nullptr; bucket = bucket->next) {
    KEEL_CHECK(bucket == front_ || bucket->lsn > last, "buckets out of order", bucket->lsn.value());
    last = bucket->lsn;
    std::size_t items = 0;
    for (LogItem* item = bucket->first; item != nullptr; item = ItemAccess::ail_next(*item)) {
      KEEL_CHECK(ItemAccess::bucket(*item) == bucket, "item in a foreign bucket");
      ++items;
    }
    KEEL_CHECK(items == bucket->items, "bucket count", items, bucket->items);
    final_bucket = bucket;
  }
  KEEL_CHECK(final_bucket == back_, "back of the AIL");
}

}  // namespace keel
