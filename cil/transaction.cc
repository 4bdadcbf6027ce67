// Commit, in the order that keeps memory reclaim from deadlocking with it: every snapshot's memory
// is made sure of before the context lock (prepare); under it there is only copying (insert).

#include <algorithm>
#include <new>
#include <utility>

#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {

struct Transaction::Entry {
  LogItem* item;
  bool empty;
};

namespace {

thread_local const Journal* t_journal = nullptr;  // of the thread's open transaction

// What one item's commit changes in the context.
struct Delta {
  bool first_insertion;
  std::uint64_t packed_before, bulk_before;
  std::uint64_t packed_after, bulk_after;
};

// Snapshots an item into its active vector, or into the shadow if that one is too small; the other
// becomes the shadow. A closed context has taken the active vector away: then the shadow, which
// prepare() made sure of, takes its place.
Delta format_item(LogItem& item) {
  LogVector*& active = ItemAccess::active(item);
  LogVector*& shadow = ItemAccess::shadow(item);
  Delta delta{active == nullptr, 0, 0, 0, 0};
  if (active != nullptr) {
    delta.packed_before = active->packed_bytes;
    delta.bulk_before = active->bulk_blocks;
  }
  const SnapshotLayout layout = shadow->layout;
  if (active != nullptr && layout.ordered) {
    // Already in the context, logged or ordered: what it has stays.
    delta.packed_after = delta.packed_before;
    delta.bulk_after = delta.bulk_before;
    return delta;
  }
  if (active != nullptr && log_vector_bytes(layout) <= active->capacity_bytes) {
    reset_log_vector(*active, layout);
  } else {
    std::swap(active, shadow);
  }
  if (!layout.ordered) {
    ItemFormatter formatter(*active);
    ItemAccess::format(item, formatter);
  }
  active->item = &item;
  delta.packed_after = active->packed_bytes;
  delta.bulk_after = active->bulk_blocks;
  return delta;
}

std::uint64_t stream_bytes(std::uint64_t packed, std::uint64_t bulk, std::uint32_t block_bytes) {
  return packed + bulk * block_bytes;
}

}  // namespace

Transaction::Transaction(Journal& journal) : journal_(&journal) { t_journal = &journal; }

Transaction::Transaction(Transaction&& other) noexcept
    : journal_(std::exchange(other.journal_, nullptr)),
      no_reclaim_(std::move(other.no_reclaim_)),
      entries_(std::exchange(other.entries_, nullptr)),
      entry_count_(std::exchange(other.entry_count_, 0)),
      max_items_(other.max_items_),
      reserved_bytes_(std::exchange(other.reserved_bytes_, 0)),
      id_(other.id_) {}

Transaction::~Transaction() {
  if (journal_ != nullptr) {
    journal_->impl_->space.give_back(reserved_bytes_);
    finish();
  }
}

Result<Transaction> Transaction::begin(Journal& journal, std::uint32_t max_items,
                                       std::uint64_t worst_case_bytes) {
  if (t_journal != nullptr) {
    report_bug({.bug = Bug::kNestedTransaction, .call = "Journal::begin"});
    return Error{Errc::kInvalidArgument, 0, "this thread has a transaction open", 0};
  }
  void* entries = os().metadata_allocate(max_items * sizeof(Entry));
  if (entries == nullptr) {
    return Error{Errc::kNoMemory, 0, "begin a transaction of items", max_items};
  }
  if (auto status = journal.impl_->space.reserve(worst_case_bytes); !status) {
    os().metadata_free(entries);
    return status.error();
  }
  Transaction transaction(journal);
  transaction.entries_ = static_cast<Entry*>(entries);
  transaction.max_items_ = max_items;
  transaction.reserved_bytes_ = worst_case_bytes;
  // Relaxed: only uniqueness matters.
  transaction.id_ = 1 + journal.impl_->transaction_ids.fetch_add(1, std::memory_order_relaxed);
  return transaction;
}

Status Transaction::log(LogItem& item) {
  KEEL_CHECK(journal_ != nullptr, "log() after the transaction's end");
  if (ItemAccess::transaction(item) == id_) {
    return {};
  }
  if (entry_count_ == max_items_) {
    return Error{Errc::kReservationExceeded, 0, "more items than begun for", max_items_};
  }
  ItemAccess::transaction(item) = id_;
  entries_[entry_count_++] = {&item, false};
  return {};
}

Result<Sequence> Transaction::commit() {
  KEEL_CHECK(journal_ != nullptr, "commit() after the transaction's end");
  Journal::Impl& impl = *journal_->impl_;
  if (auto status = impl.usable(); !status) {
    impl.space.give_back(reserved_bytes_);
    finish();
    return status.error();
  }
  std::uint64_t packed_bytes = 0;
  std::uint64_t bulk_blocks = 0;
  if (auto status = prepare(packed_bytes, bulk_blocks); !status) {
    return status.error();
  }
  const auto shape = format::checkpoint_shape(packed_bytes, bulk_blocks, impl.block_bytes());
  // One block more: what joining the context may cost beyond both apart (checkpoint_shape).
  const std::uint64_t needed = shape.bytes + impl.block_bytes();
  if (needed > reserved_bytes_) {
    return Error{Errc::kReservationExceeded, 0, "more bytes than begun for; needs", needed};
  }
  auto sequence = insert();
  finish();
  return sequence;
}

// The only allocation of a commit, before the context lock. Reclaim may need a log force, a force
// needs the context lock exclusively: an allocation under it could wait for itself.
Status Transaction::prepare(std::uint64_t& packed_bytes, std::uint64_t& bulk_blocks) {
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    if (auto status = prepare_item(entries_[i], packed_bytes, bulk_blocks); !status) {
      return status;
    }
  }
  return {};
}

Status Transaction::prepare_item(Entry& entry, std::uint64_t& packed_bytes,
                                 std::uint64_t& bulk_blocks) {
  Journal::Impl& impl = *journal_->impl_;
  LogItem& item = *entry.item;
  ItemSize size(impl.block_bytes());
  ItemAccess::size(item, size);
  entry.empty = size.empty();
  if (entry.empty) {
    return {};
  }
  packed_bytes += size.packed_bytes();
  bulk_blocks += size.bulk_blocks();
  const SnapshotLayout layout = layout_of(size);
  LogVector*& shadow = ItemAccess::shadow(item);
  // An item may come from an earlier journal, of another pool or block size.
  const bool ours = shadow != nullptr && ItemAccess::pool(item) == &impl.pool &&
                    shadow->block_bytes == impl.block_bytes();
  if (ours && log_vector_bytes(layout) <= shadow->capacity_bytes) {
    reset_log_vector(*shadow, layout);
    return {};
  }
  if (shadow != nullptr) {
    // Free and allocate rather than reallocate: nothing of the old snapshot is wanted.
    ItemAccess::pool(item)->kvfree(std::exchange(shadow, nullptr));
  }
  shadow = allocate_log_vector(impl.pool, layout, impl.block_bytes());
  if (shadow == nullptr) {
    return Error{Errc::kNoMemory, 0, "snapshot an item of bytes", log_vector_bytes(layout)};
  }
  ItemAccess::pool(item) = &impl.pool;
  return {};
}

Result<Sequence> Transaction::insert() {
  Journal::Impl& impl = *journal_->impl_;
  SharedLock shared(impl.context_mutex);
  const NoAllocScope no_alloc;
  if (auto status = impl.stable.status(); !status) {
    impl.space.give_back(reserved_bytes_);
    return status.error();
  }
  std::uint64_t packed_before = 0, bulk_before = 0, packed_after = 0, bulk_after = 0;
  std::uint32_t items = 0;
  LogItem* inserted = nullptr;  // newly in the context, in order, linked through cil_next
  LogItem** inserted_end = &inserted;
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    if (entries_[i].empty) {
      continue;
    }
    LogItem& item = *entries_[i].item;
    const Delta delta = format_item(item);
    packed_before += delta.packed_before;
    bulk_before += delta.bulk_before;
    packed_after += delta.packed_after;
    bulk_after += delta.bulk_after;
    ++items;
    if (delta.first_insertion) {
      ItemAccess::pin(item);
      *inserted_end = &item;
      inserted_end = &ItemAccess::cil_next(item);
      *inserted_end = nullptr;
    }
  }
  const Sequence sequence =
      join_context(inserted, packed_after - packed_before, bulk_after - bulk_before);
  JournalCounters::add(impl.counters.transactions, 1);
  JournalCounters::add(impl.counters.items, items);
  JournalCounters::add(impl.counters.committed_bytes,
                       stream_bytes(packed_after, bulk_after, impl.block_bytes()));
  JournalCounters::add(impl.counters.coalesced_bytes,
                       stream_bytes(packed_before, bulk_before, impl.block_bytes()));
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    // First forgotten, then told: the client may drop its object lock in committing().
    ItemAccess::transaction(*entries_[i].item) = 0;
    if (!entries_[i].empty) {
      ItemAccess::committing(*entries_[i].item, sequence);
    }
  }
  entry_count_ = 0;
  return sequence;
}

// Adds the items that are new to the context, stamps all with this commit's order, and turns the
// reservation into what the context takes. Deltas may be negative; unsigned sums come out right.
Sequence Transaction::join_context(LogItem* inserted, std::uint64_t packed_delta,
                                   std::uint64_t bulk_delta) {
  Journal::Impl& impl = *journal_->impl_;
  MutexLock lock(impl.cil_mutex);
  Context& context = impl.context;
  ++impl.order;
  while (inserted != nullptr) {
    LogItem* item = inserted;
    inserted = ItemAccess::cil_next(*item);
    append(context, *item);
  }
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    if (!entries_[i].empty) {
      ItemAccess::order(*entries_[i].item) = impl.order;
    }
  }
  context.packed_bytes += packed_delta;
  context.bulk_blocks += bulk_delta;
  const std::uint64_t bytes = context_bytes(context, impl.block_bytes());
  impl.space.committed(reserved_bytes_, bytes);
  if (bytes >= impl.threshold_bytes) {
    impl.request_push(context.sequence);
  }
  return context.sequence;
}

void Transaction::finish() {
  for (std::uint32_t i = 0; i < entry_count_; ++i) {
    ItemAccess::transaction(*entries_[i].item) = 0;
  }
  os().metadata_free(entries_);
  entries_ = nullptr;
  entry_count_ = 0;
  journal_ = nullptr;
  t_journal = nullptr;
}

}  // namespace keel
