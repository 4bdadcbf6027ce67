#include "intents.h"

#include <algorithm>

#include "journal_impl.h"
#include "keel/base/check.h"
#include "log/format.h"
#include "space.h"

namespace keel {

IntentItem::IntentItem(std::uint64_t id, std::span<const std::byte> payload)
    : LogItem(BuiltIn{format::kTypeIntent}), id_(id), payload_(payload) {}

std::size_t IntentItem::log_bytes(std::size_t payload_bytes) {
  return sizeof(format::IntentHeader) + payload_bytes;
}

void IntentItem::size(ItemSize& size) const {
  size.region(sizeof(format::IntentHeader));
  if (!payload_.empty()) {
    size.region(payload_.size());
  }
}

void IntentItem::format(ItemFormatter& formatter) const {
  const format::IntentHeader header{id_, payload_.size()};
  formatter.copy(&header, sizeof header);
  if (!payload_.empty()) {
    formatter.copy(payload_.data(), payload_.size());
  }
}

DoneItem::DoneItem(IntentItem& intent) : LogItem(BuiltIn{format::kTypeDone}), intent_(intent) {}

std::size_t DoneItem::log_bytes() { return sizeof(format::DoneHeader); }

void DoneItem::size(ItemSize& size) const { size.region(sizeof(format::DoneHeader)); }

void DoneItem::format(ItemFormatter& formatter) const {
  const format::DoneHeader header{intent_.id()};
  formatter.copy(&header, sizeof header);
}

// The done is stable, so the intent may leave: nothing in the log needs finishing any more. After a
// failure it leaves with all others.
void DoneItem::release(bool aborted) {
  IntentItem& intent = intent_;  // its release() may destroy this item
  if (!aborted && IntentAccess::journal(intent)->release(intent)) {
    ItemAccess::release(intent, false);
  }
}

Reservation done_reservation(std::uint32_t block_bytes) {
  return worst_case(DoneItem::log_bytes(), 1, block_bytes);
}

IntentItem* IntentAccess::intent(LogItem& item) {
  return item.type() == format::kTypeIntent ? static_cast<IntentItem*>(&item) : nullptr;
}

DoneItem* IntentAccess::done(LogItem& item) {
  return item.type() == format::kTypeDone ? static_cast<DoneItem*>(&item) : nullptr;
}

OwnedIntent::OwnedIntent(std::uint64_t id, const RecoveredRegion& bytes)
    : payload([&] {
        std::vector<std::byte> copy(bytes.size_bytes());
        bytes.copy_to(copy.data(), copy.size());
        return copy;
      }()),
      item(id, payload) {}

Status IntentCollector::add(const RecoveredCheckpoint& checkpoint) {
  for (const RecoveredItem& item : checkpoint.items) {
    if (const auto intent = RecoveredIntent::from(item)) {
      // One that is found already was logged again.
      found_.insert_or_assign(
          intent->id, Found{order_++, std::make_unique<OwnedIntent>(intent->id, intent->payload)});
    } else if (const auto done = RecoveredDone::from(item)) {
      found_.erase(done->id);
    }
    if (found_.size() > most_) {
      return Error{Errc::kDamaged, 0, "more open intents than the log has room for, at LSN",
                   checkpoint.start.value()};
    }
  }
  return {};
}

std::vector<std::unique_ptr<OwnedIntent>> IntentCollector::take() {
  std::vector<Found> found;
  found.reserve(found_.size());
  for (auto& [id, one] : found_) {
    found.push_back(std::move(one));
  }
  found_.clear();
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.order < b.order; });
  std::vector<std::unique_ptr<OwnedIntent>> intents;
  intents.reserve(found.size());
  for (Found& one : found) {
    intents.push_back(std::move(one.intent));
  }
  return intents;
}

// Before the log is taken over: what the intents that were found will hold must fit.
Status Journal::Impl::check_intents() const {
  const Reservation room = done_reservation(block_bytes());
  const std::uint64_t count = recovered_intents.size();
  const LogSpace::Limits& limits = space.limits();
  const std::uint64_t log_bytes = (report.head - report.tail).value() + count * room.log_bytes;
  if (count != 0 && log_bytes > limits.log_bytes) {
    return Error{Errc::kDamaged, 0, "more open intents than the log has room for", count};
  }
  if (count * room.memory_bytes > limits.memory_bytes) {
    return Error{Errc::kTooLarge, 0, "the log's open intents need a cil_memory of, bytes",
                 count * room.memory_bytes};
  }
  return {};
}

// What was recovered holds the tail already; each intent goes on doing so until it is done, and
// holds room for that, as it did before.
void Journal::Impl::adopt_intents(Journal& journal) {
  const Reservation room = done_reservation(block_bytes());
  for (const auto& owned : recovered_intents) {
    IntentItem& intent = owned->item;
    IntentAccess::journal(intent) = &journal;
    // Long stable, so no context is the one that it joined.
    IntentAccess::logged(intent) = report.last_sequence;
    IntentAccess::holds(intent) = true;
    space.adopt_held(room);
    {
      MutexLock lock(recovered_mutex);
      ail.adopt(*recovered, intent);
    }
    intents.push_back(&intent);
  }
  // Once all have what they must have.
  for (IntentItem* intent : intents) {
    keep_snapshot(*intent);
  }
}

// So that an intent that was recovered can be logged again when it alone holds the tail: else its
// own work, in other transactions, might find no room in a full log. Without memory it goes
// without, as any item whose snapshot a pool in want has taken.
void Journal::Impl::keep_snapshot(IntentItem& intent) {
  ItemSize size(block_bytes());
  ItemAccess::size(intent, size);
  const SnapshotLayout layout = layout_of(size);
  LogVector* vector = allocate_log_vector(pool, layout, block_bytes());
  if (vector == nullptr) {
    return;
  }
  if (!space.try_reserve_again({0, vector->capacity_bytes})) {
    pool.kvfree(vector);
    return;
  }
  ItemAccess::snapshot(intent, *vector, layout);
  vector->is_snapshot = true;
  ItemAccess::pool(intent) = &pool;
  KEEL_CHECK(ItemAccess::put_shadow(intent, vector), "a new intent has a snapshot", intent.id());
}

// Turns what the intent holds into a transaction's grant. Never waits for space: only, if the
// context and the open transactions are as large as a checkpoint may be, for the push or an end.
Status Journal::Impl::take_held(IntentItem& intent) {
  const Reservation room = done_reservation(block_bytes());
  KEEL_CHECK(IntentAccess::holds(intent), "begin_done() of an intent that is not open",
             intent.id());
  if (auto status = space.unhold(room); !status) {
    return status;
  }
  IntentAccess::holds(intent) = false;
  return {};
}

// A part of a transaction's grant becomes what the intent holds.
void Journal::Impl::hold_for(IntentItem& intent) {
  space.hold(done_reservation(block_bytes()));
  IntentAccess::holds(intent) = true;
}

// The done is committed, out of another grant.
void Journal::Impl::drop_held(IntentItem& intent) {
  IntentAccess::holds(intent) = false;
  space.drop_held(done_reservation(block_bytes()));
}

Result<Transaction> Journal::begin_done(IntentItem& intent) {
  if (auto status = impl_->usable(); !status) {
    return status.error();
  }
  return Transaction::begin_done(*this, intent);
}

std::span<IntentItem* const> Journal::recovered_intents() const { return impl_->intents; }

Result<Transaction> Transaction::begin_done(Journal& journal, IntentItem& intent) {
  if (auto status = check_alone("Journal::begin_done"); !status) {
    return status.error();
  }
  Journal::Impl& impl = *journal.impl_;
  if (auto status = impl.take_held(intent); !status) {
    return status.error();
  }
  Transaction transaction(journal, done_reservation(impl.block_bytes()), 1, nullptr);
  transaction.intent_ = &intent;
  return transaction;
}

// Called with the context lock held shared, for an item that is about to be inserted. True for a
// done that takes back its intent: then nothing is inserted, and what the intent had taken of the
// context comes back with the sums.
bool Transaction::settle_intent(LogItem& item, Sequence sequence, ContextSums& before,
                                ContextSums& after) {
  Journal::Impl& impl = *journal_->impl_;
  if (IntentItem* intent = IntentAccess::intent(item); intent != nullptr) {
    KEEL_CHECK(!IntentAccess::is_done(*intent), "an intent after its done", intent->id());
    if (IntentAccess::logged(*intent) == Sequence{}) {
      IntentAccess::logged(*intent) = sequence;
      IntentAccess::journal(*intent) = journal_;
      const Reservation room = done_reservation(impl.block_bytes());
      reserved_log_bytes_ -= room.log_bytes;
      reserved_memory_bytes_ -= room.memory_bytes;
      impl.hold_for(*intent);
    }
    return false;
  }
  DoneItem* done = IntentAccess::done(item);
  if (done == nullptr) {
    return false;
  }
  IntentItem& intent = IntentAccess::intent_of(*done);
  KEEL_CHECK(IntentAccess::logged(intent) != Sequence{}, "a done before its intent", intent.id());
  KEEL_CHECK(!IntentAccess::is_done(intent), "a second done", intent.id());
  IntentAccess::is_done(intent) = true;
  if (IntentAccess::holds(intent)) {
    impl.drop_held(intent);
  }
  intent_ = intent_ == &intent ? nullptr : intent_;
  LogVector* vector = ItemAccess::active(intent, sequence);
  if (IntentAccess::logged(intent) != sequence || vector == nullptr) {
    return false;
  }
  before += {1, vector->packed_bytes, vector->bulk_blocks, vector->cost()};
  after.items += 1;
  vector->packed_bytes = 0;
  vector->bulk_blocks = 0;
  vector->cancelled = true;
  return true;
}

}  // namespace keel
