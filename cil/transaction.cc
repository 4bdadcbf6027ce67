// Commit, in the order that keeps memory reclaim from deadlocking with it: every snapshot's memory
// is made sure of before the context lock (prepare); under it there is only copying (insert).

#include <algorithm>
#include <new>
#include <utility>

#include "debug_switch.h"
#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {

struct Transaction::Entry {
  LogItem* item;
  LogVector* shadow;  // the item's, claimed, or a new one; nullptr before prepare()
  LogVector* kept;    // the item's snapshot, if a larger vector is to take its place, or none
  SnapshotLayout layout;
  bool empty;
};

namespace {

thread_local const Journal* t_journal = nullptr;  // of the thread's open transaction

std::uint64_t stream_bytes(const ContextSums& sums, std::uint32_t block_bytes) {
  return sums.packed_bytes + sums.bulk_blocks * block_bytes;
}

// What the vector adds to the context; nothing if there is none.
ContextSums sums_of(const LogVector* vector) {
  return vector == nullptr
             ? ContextSums{}
             : ContextSums{1, vector->packed_bytes, vector->bulk_blocks, vector->cost()};
}

// What an intent takes of the transaction beside its snapshot, at its first commit.
std::uint64_t room_to_hold(LogItem& item, std::uint32_t block_bytes) {
  IntentItem* intent = IntentAccess::intent(item);
  const bool first = intent != nullptr && IntentAccess::logged(*intent) == Sequence{};
  return first ? done_reservation(block_bytes).log_bytes : 0;
}

// Snapshots an item into its active vector, or into the shadow if that one is too small; the other
// is left as the shadow. A closed context has taken the active vector away: then the shadow, which
// prepare() made sure of, takes its place.
void format_item(LogItem& item, LogVector*& active, LogVector*& shadow,
                 const SnapshotLayout& layout) {
  if (active != nullptr && layout.ordered) {
    return;  // Already in the context, logged or ordered: what it has stays.
  }
  if (active == nullptr || log_vector_bytes(layout) > active->capacity_bytes) {
    std::swap(active, shadow);
  }
  ItemAccess::snapshot(item, *active, layout);
}

}  // namespace

bool in_transaction() { return t_journal != nullptr; }

Transaction::Transaction(Journal& journal, Reservation reserved)
    : journal_(&journal),
      reserved_log_bytes_(reserved.log_bytes),
      reserved_memory_bytes_(reserved.memory_bytes) {
  t_journal = &journal;
}

Transaction::Transaction(Transaction&& other) noexcept
    : journal_(std::exchange(other.journal_, nullptr)),
      no_reclaim_(std::move(other.no_reclaim_)),
      entries_(std::exchange(other.entries_, nullptr)),
      entry_count_(std::exchange(other.entry_count_, 0)),
      max_items_(other.max_items_),
      reserved_log_bytes_(std::exchange(other.reserved_log_bytes_, 0)),
      reserved_memory_bytes_(std::exchange(other.reserved_memory_bytes_, 0)),
      intent_(std::exchange(other.intent_, nullptr)) {
  if (entries_ == other.inline_entries()) {
    std::copy_n(other.inline_bytes_, entry_count_ * sizeof(Entry), inline_bytes_);
    entries_ = inline_entries();
  }
}

Transaction::~Transaction() {
  if (journal_ != nullptr) {
    finish();
  }
}

Transaction::Entry* Transaction::inline_entries() {
  static_assert(sizeof(Entry) * kInlineEntries <= sizeof inline_bytes_);
  return reinterpret_cast<Entry*>(inline_bytes_);
}

Status Transaction::check_alone(const char* call) {
  if (t_journal != nullptr) {
    report_bug({.bug = Bug::kNestedTransaction, .call = call});
    return Error{Errc::kInvalidArgument, 0, "this thread has a transaction open", 0};
  }
  return {};
}

Result<Transaction> Transaction::begin(Journal& journal, std::uint32_t max_items,
                                       Reservation wanted) {
  if (auto status = check_alone("Journal::begin"); !status) {
    return status.error();
  }
  // First whether it can be granted at all, whatever credit there is: and no table is made for what
  // never will be.
  if (auto status = journal.impl_->space.check(wanted); !status) {
    return status.error();
  }
  void* entries = nullptr;
  if (max_items > kInlineEntries) {
    entries = os().metadata_allocate(max_items * sizeof(Entry));
    if (entries == nullptr) {
      return Error{Errc::kNoMemory, 0, "begin a transaction of items", max_items};
    }
  }
  if (auto status = journal.impl_->reserve(wanted); !status) {
    if (entries != nullptr) {
      os().metadata_free(entries);
    }
    return status.error();
  }
  return Transaction(journal, wanted, max_items, entries);
}

Transaction::Transaction(Journal& journal, Reservation reserved, std::uint32_t max_items,
                         void* entries)
    : Transaction(journal, reserved) {
  entries_ = entries != nullptr ? static_cast<Entry*>(entries) : inline_entries();
  max_items_ = max_items;
}

Status Transaction::log(LogItem& item) {
  KEEL_CHECK(journal_ != nullptr, "log() after the transaction's end");
  KEEL_CHECK(intent_ == nullptr || IntentAccess::is_done_of(item, *intent_),
             "a transaction of begin_done() takes that intent's done alone", intent_->id());
  // A thread has one transaction at most, so a thread's own address is a mark for it.
  if (ItemAccess::transaction(item) == &t_journal) {
    return {};
  }
  if (entry_count_ == max_items_) {
    return Error{Errc::kReservationExceeded, 0, "more items than begun for", max_items_};
  }
  ItemAccess::transaction(item) = &t_journal;
  ItemAccess::pool(item) = &journal_->impl_->pool;
  ::new (&entries_[entry_count_++]) Entry{&item, nullptr, nullptr, {}, false};
  return {};
}

Result<Sequence> Transaction::commit() {
  KEEL_CHECK(journal_ != nullptr, "commit() after the transaction's end");
  Journal::Impl& impl = *journal_->impl_;
  if (auto status = impl.usable(); !status) {
    finish();
    return status.error();
  }
  if (auto status = allocate_under_context_lock() ? Status{} : prepare(); !status) {
    return status.error();
  }
  bool gave_back = false;
  auto sequence = insert(gave_back);
  finish(gave_back);
  return sequence;
}

// The only allocation of a commit, before the context lock. Reclaim may need a log force, a force
// needs the context lock exclusively: an allocation under it could wait for itself.
Status Transaction::prepare() {
  const std::uint32_t block = journal_->impl_->block_bytes();
  std::uint64_t needed = format::checkpoint_unit(block);
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    Entry& entry = entries_[i];
    ItemSize size(block);
    ItemAccess::size(*entry.item, size);
    entry.empty = size.empty();
    entry.layout = layout_of(size);
    needed += format::checkpoint_cost(size.packed_bytes(), size.bulk_blocks(), block);
    needed += room_to_hold(*entry.item, block);
    if (needed > reserved_log_bytes_) {
      return Error{Errc::kReservationExceeded, 0, "more bytes than begun for; needs", needed};
    }
    if (auto status = entry.empty ? Status{} : prepare_shadow(entry); !status) {
      return status;
    }
  }
  return {};
}

Status Transaction::prepare_shadow(Entry& entry) {
  Journal::Impl& impl = *journal_->impl_;
  LogItem& item = *entry.item;
  if (entry.layout.ordered &&
      (entry.kept != nullptr || (entry.shadow != nullptr && entry.shadow->is_snapshot))) {
    // An earlier try of this commit, which was to log the item, has taken its snapshot.
    (void)give_shadow_back(entry, false);
    free_vector(std::exchange(entry.shadow, std::exchange(entry.kept, nullptr)));
  }
  // Ordering an item logs nothing of it: what it has, perhaps a snapshot, stays with it.
  if (entry.shadow == nullptr && !entry.layout.ordered) {
    entry.shadow = ItemAccess::claim_shadow(item);
    // By order and not by pin: a pin may be of a context that only orders the item. (One that was
    // logged again has a later order than its commit.)
    if (entry.shadow != nullptr && !ItemAccess::is_newest_snapshot(item, *entry.shadow)) {
      // A newer one is on its way to the log, or none is needed.
      entry.shadow->is_snapshot = false;
    }
  }
  const std::size_t wanted = log_vector_bytes(entry.layout);
  if (entry.shadow != nullptr && wanted <= entry.shadow->capacity_bytes) {
    return {};
  }
  if (entry.shadow != nullptr && entry.shadow->is_snapshot) {
    // An item without a home is logged again from it: it goes when the commit is done, and not if
    // there is no memory for this item or a later one and the transaction is cancelled.
    entry.kept = std::exchange(entry.shadow, nullptr);
  }
  // Free and allocate rather than reallocate: nothing of a mere standby is wanted.
  free_vector(std::exchange(entry.shadow, nullptr));
  LogVector* vector = allocate_log_vector(impl.pool, entry.layout, impl.block_bytes(),
                                          impl.settings.retry_contiguous);
  if (vector == nullptr) {
    return Error{Errc::kNoMemory, 0, "snapshot an item of bytes", wanted};
  }
  if (vector->capacity_bytes > reserved_memory_bytes_) {
    impl.pool.kvfree(vector);
    return Error{Errc::kReservationExceeded, 0, "more bytes than begun for; snapshot", wanted};
  }
  reserved_memory_bytes_ -= vector->capacity_bytes;
  entry.shadow = vector;
  return {};
}

// Nobody else has it, so its memory is the transaction's again.
void Transaction::free_vector(LogVector* vector) {
  if (vector != nullptr) {
    reserved_memory_bytes_ += vector->capacity_bytes;
    journal_->impl_->pool.kvfree(vector);
  }
}

// `gave_back`: set if an item has got a snapshot back.
Result<Sequence> Transaction::insert(bool& gave_back) {
  Journal::Impl& impl = *journal_->impl_;
  Cil& cil = impl.cil;
  CilPart& part = cil.lock_shared();
  if (allocate_under_context_lock()) {
    KEEL_CHECK(prepare().ok(), "the test's transactions fit");
  }
  const NoAllocScope no_alloc;
  if (impl.stable.failed()) {
    cil.unlock_shared(part);
    return impl.stable.status().error();
  }
  const Sequence sequence = cil.sequence();
  const std::uint64_t order = cil.take_orders(entry_count_);
  ContextSums before;
  ContextSums after;
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    Entry& entry = entries_[i];
    entry.empty = entry.empty || settle_intent(*entry.item, sequence, before, after);
    if (!entry.empty) {
      insert_item(entry, part, sequence, order + i, before, after);
    }
  }
  account(part, before, after);
  // Nothing was ever inserted into it: what a force has to wait for is what came before.
  const bool empty_context = !cil.is_open();
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    // First forgotten, then told: the client may drop its object lock in committing().
    Entry& entry = entries_[i];
    gave_back = give_shadow_back(entry, !entry.empty) || gave_back;
    ItemAccess::transaction(*entry.item) = nullptr;
    if (!entry.empty) {
      ItemAccess::committing(*entry.item, sequence);
    }
    entry.item = nullptr;
  }
  const bool push = cil.cost() >= impl.threshold_bytes;
  cil.unlock_shared(part);
  if (push) {
    impl.request_push(sequence);
  }
  return empty_context ? previous(sequence) : sequence;
}

void Transaction::insert_item(Entry& entry, CilPart& part, Sequence sequence, std::uint64_t order,
                              ContextSums& before, ContextSums& after) {
  LogItem& item = *entry.item;
  LogVector*& active = ItemAccess::active(item, sequence);
  const bool first = active == nullptr;
  before += sums_of(active);
  format_item(item, active, entry.shadow, entry.layout);
  after += sums_of(active);
  active->order = order;
  if (!entry.layout.ordered) {
    ItemAccess::logged_at(item, order);
  }
  if (first) {
    ItemAccess::forget_abort(item);
    part.append(item, sequence);
  }
  if (!ItemAccess::commit(item, first) && entry.layout.ordered) {
    // Whoever let go of it leaves what it has to this commit, which took nothing of that. Logged
    // again, it would come to stand behind what has been home since. (Also what was logged in this
    // very context, which has the order of this commit by now.)
    ItemAccess::let_go_at(item, order + 1);
  }
}

// Puts the difference into the part, turns what was used of the reservation into the context's, and
// keeps the rest as the part's credit, or for finish() to give back.
// (The caller holds the context lock, as a part that the analysis cannot see.)
void Transaction::account(CilPart& part, const ContextSums& before,
                          const ContextSums& after) KEEL_NO_THREAD_SAFETY_ANALYSIS {
  Journal::Impl& impl = *journal_->impl_;
  if (after.items != 0) {
    const std::uint64_t unit =
        impl.cil.open() ? format::checkpoint_unit(impl.block_bytes()) : std::uint64_t{0};
    part.sums.packed_bytes += after.packed_bytes - before.packed_bytes;
    part.sums.bulk_blocks += after.bulk_blocks - before.bulk_blocks;
    const std::uint64_t used = after.cost - before.cost + unit;  // may be "negative"
    impl.cil.add_cost(part, used);
    reserved_log_bytes_ -= used;
  }
  part.counts.transactions += 1;
  part.counts.items += after.items;
  part.counts.committed_bytes += stream_bytes(after, impl.block_bytes());
  part.counts.coalesced_bytes += stream_bytes(before, impl.block_bytes());
  // What is left of an intent's room without its done goes back to the intent: see finish().
  if (intent_ == nullptr && !impl.space.contended()) {
    const Reservation unused{reserved_log_bytes_, reserved_memory_bytes_};
    if (impl.keep_credit(part, unused)) {
      reserved_log_bytes_ = reserved_memory_bytes_ = 0;
    }
  }
}

// The item keeps the vector that it does not use as its shadow, while the journal knows it. True if
// it has it.
bool Transaction::give_shadow_back(Entry& entry, bool inserted) {
  if (entry.kept != nullptr && !inserted) {
    std::swap(entry.shadow, entry.kept);
  }
  if (entry.shadow == nullptr) {
    return false;
  }
  LogItem& item = *entry.item;
  if (!ItemAccess::is_known(item) || !ItemAccess::put_shadow(item, entry.shadow)) {
    return false;
  }
  entry.shadow = nullptr;
  // If the journal let go of the item meanwhile, its shadow went with it, or is this one.
  if (!ItemAccess::is_known(item)) {
    entry.shadow = ItemAccess::claim_shadow(item);
  }
  return entry.shadow == nullptr;
}

void Transaction::finish(bool gave_back) {
  Journal::Impl& impl = *journal_->impl_;
  if (!impl.owned()) {  // A forked child: items, memory and locks are its parent's.
    journal_ = nullptr;
    t_journal = nullptr;
    return;
  }
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    Entry& entry = entries_[i];
    if (entry.item != nullptr) {
      gave_back = give_shadow_back(entry, false) || gave_back;
      ItemAccess::transaction(*entry.item) = nullptr;
    }
    free_vector(entry.shadow);
    free_vector(entry.kept);
  }
  if (gave_back && impl.space.contended() && impl.space.memory_wanted()) {
    impl.ask_for_pass();  // The last one has not seen them; before what follows wakes who waits.
  }
  if (intent_ != nullptr) {  // No commit: what it held goes back to it.
    const Reservation room = done_reservation(impl.block_bytes());
    reserved_log_bytes_ -= room.log_bytes;
    reserved_memory_bytes_ -= room.memory_bytes;
    impl.hold_for(*std::exchange(intent_, nullptr));
  }
  if (reserved_log_bytes_ != 0 || reserved_memory_bytes_ != 0 || impl.space.contended()) {
    impl.space.give_back({reserved_log_bytes_, reserved_memory_bytes_});
  }
  if (entries_ != inline_entries()) {
    os().metadata_free(entries_);
  }
  entries_ = nullptr;
  entry_count_ = 0;
  reserved_log_bytes_ = reserved_memory_bytes_ = 0;
  journal_ = nullptr;
  t_journal = nullptr;
}

}  // namespace keel
