#include "demo/ingest_worker.h"

#include <algorithm>
#include <mutex>

#include "demo/edit.h"

namespace keel::tools {
namespace {

// Payload of one transaction's objects, unless a single one is larger.
constexpr std::size_t kMostTransactionBytes = std::size_t{1} << 20;
// Transactions of a worker from one force to the next, on average.
constexpr std::uint64_t kTransactionsToForce = 48;
// One object in so many is hot, and gets three edits of four.
constexpr std::uint64_t kHotShare = 32;

}  // namespace

Worker::Worker(IngestState& state, std::uint32_t number)
    : state_(state),
      number_(number),
      notes_(state.notes().workers[number]),
      random_(derive_seed(state.options.seed, state.options.life, number)) {}

void Worker::run() {
  try {
    while (!state_.stopping.load(std::memory_order_relaxed) && !full()) {
      step();
    }
  } catch (const Failure& failure) {
    state_.fail(failure);
  } catch (const std::exception& error) {
    state_.fail({kWorldFailed, "", error.what()});
  }
}

bool Worker::full() const {
  return notes_.committed.load(std::memory_order_relaxed) == kMostNotes ||
         Bytes(state_.notes().log_used.load(std::memory_order_relaxed)) >= state_.options.budget;
}

void Worker::step() {
  const bool ingested_all = state_.notes().left.load(std::memory_order_relaxed) == 0;
  Draft draft = ingested_all || random_.one_in(2) ? draft_edits() : draft_ingest();
  if (!draft.objects.empty()) {
    commit(draft);
  }
  state_.notes().log_used.store(state_.journal->stats().log_used.value(),
                                std::memory_order_relaxed);
  if (until_force_ == 0) {
    until_force_ = 1 + random_.below(2 * kTransactionsToForce);
    require(state_.force_and_acknowledge(), state_.options.log);
  }
  --until_force_;
}

bool Worker::add(Draft& draft, std::uint32_t object) const {
  const std::size_t bytes = ObjectItem::log_bytes(state_.plan.objects[object].size_bytes +
                                                  kMostGrowthBytes + sizeof(Trailer));
  if (!draft.objects.empty() && draft.most_bytes + bytes > kMostTransactionBytes) {
    return false;
  }
  draft.objects.push_back(object);
  draft.most_bytes += bytes;
  return true;
}

// The files are read here, before the transaction is begun.
Worker::Draft Worker::draft_ingest() {
  Draft draft;
  draft.ingest = true;
  const std::uint64_t wanted = 1 + random_.below(kMostObjectsInTransaction);
  state_.claim([this, &draft, wanted](std::uint32_t object) {
    return draft.objects.size() < wanted && add(draft, object);
  });
  for (const std::uint32_t object : draft.objects) {
    draft.file_parts.push_back(read_planned(state_.plan, state_.plan.objects[object]));
  }
  return draft;
}

Worker::Draft Worker::draft_edits() {
  const std::uint64_t count = state_.objects.size();
  const std::uint64_t hot = std::max<std::uint64_t>(count / kHotShare, 1);
  const std::uint64_t wanted = 1 + random_.below(kMostObjectsInTransaction);
  std::vector<std::uint32_t> picked;
  for (std::uint64_t i = 0; i < wanted; ++i) {
    const std::uint64_t limit = random_.one_in(4) ? count : hot;
    picked.push_back(static_cast<std::uint32_t>(random_.below(limit)));
  }
  std::sort(picked.begin(), picked.end());
  picked.erase(std::unique(picked.begin(), picked.end()), picked.end());
  Draft draft;
  for (const std::uint32_t object : picked) {
    if (!add(draft, object)) {
      break;
    }
  }
  return draft;
}

void Worker::commit(Draft& draft) {
  const std::size_t count = draft.objects.size();
  auto transaction =
      state_.journal->begin(draft.most_bytes + ObjectItem::log_bytes(record_bytes(count)),
                            static_cast<std::uint32_t>(count + 1));
  require(transaction, state_.options.log);
  TransactionRecord record;
  record.name = {state_.options.life, number_,
                 notes_.base + notes_.committed.load(std::memory_order_relaxed) + 1};
  std::vector<std::unique_lock<std::mutex>> locks;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t number = draft.objects[i];
    LiveObject& object = *state_.objects[number];
    locks.emplace_back(object.mutex);
    if (draft.ingest) {
      ingest(object, std::move(draft.file_parts[i]));
    } else if (object.version != 0) {
      edit(object, number);
    } else {
      continue;  // not there yet: nothing to edit
    }
    append(object.bytes, Trailer{0, record.name, number, object.version});
    object.item.set(object.bytes);
    record.made.push_back({number, object.version});
    require(transaction->log(object.item), state_.options.log);
  }
  if (record.made.empty()) {
    return;  // cancels it
  }
  records_.emplace_back(record);
  require(transaction->log(records_.back().item), state_.options.log);
  const auto sequence = transaction->commit();
  require(sequence, state_.options.log);
  note(*sequence);
}

void Worker::ingest(LiveObject& object, std::vector<std::byte> file_part) const {
  object.bytes = std::move(file_part);
  object.version = 1;
}

void Worker::edit(LiveObject& object, std::uint32_t number) const {
  object.bytes.resize(object.bytes.size() - sizeof(Trailer));
  ++object.version;
  apply_edit(object.bytes, state_.plan.objects[number].size_bytes, state_.options.seed, number,
             object.version);
}

void Worker::note(Sequence sequence) {
  const std::uint64_t count = notes_.committed.load(std::memory_order_relaxed);
  notes_.sequences[count].store(sequence.value(), std::memory_order_relaxed);
  // Pairs with the acquires in force_and_acknowledge() and in the parent.
  notes_.committed.store(count + 1, std::memory_order_release);
}

}  // namespace keel::tools
