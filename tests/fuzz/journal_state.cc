#include "journal_state.h"

#include <algorithm>
#include <span>
#include <utility>

#include "fuzz_log.h"
#include "keel/cil/range_item.h"

namespace keel_fuzz {
namespace {

using keel::RangeItem;

std::string copy_of(const keel::RecoveredRegion& region) {
  std::string bytes(region.size_bytes(), '\0');
  FUZZ_CHECK(region.copy_to(bytes.data(), bytes.size()) == bytes.size());
  return bytes;
}

}  // namespace

JournalReplay::JournalReplay(const JournalState& home, const std::set<std::uint64_t>& taken_back)
    : state_(home), taken_back_(taken_back) {
  state_.intents.clear();  // they have no home: the log alone has them
}

void JournalReplay::apply(const keel::RecoveredCheckpoint& checkpoint) {
  (void)check_checkpoint(checkpoint);
  for (const keel::RecoveredItem& item : checkpoint.items) {
    if (const auto object = keel::RecoveredObject::from(item)) {
      apply_object(*object);
    } else if (const auto range = keel::RecoveredRange::from(item)) {
      apply_range(*range);
    } else if (const auto intent = keel::RecoveredIntent::from(item)) {
      apply_intent(*intent);
    } else {
      const auto done = keel::RecoveredDone::from(item);
      FUZZ_CHECK(done.has_value());
      apply_done(*done);
    }
  }
}

void JournalReplay::apply_object(const keel::RecoveredObject& object) {
  FUZZ_CHECK(object.id >= 1 && object.id <= kObjects);
  auto& bytes = state_.objects[object.id - 1];
  if (object.erased) {
    bytes.reset();
    return;
  }
  std::string now = object.partial ? bytes.value_or("") : "";
  now.resize(object.size_bytes);
  FUZZ_CHECK(object.apply_to(std::as_writable_bytes(std::span(now))).ok());
  bytes = std::move(now);
}

// Whole chunks, but for the last one of the memory; runs do not touch, or they were one.
void JournalReplay::apply_range(const keel::RecoveredRange& range) {
  FUZZ_CHECK(range.id >= 1 && range.id <= kRangeBytes.size());
  std::string& memory = state_.ranges[range.id - 1];
  FUZZ_CHECK(range.size_bytes == memory.size() && range.ranges.count() >= 1);
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < range.ranges.count(); ++i) {
    const std::uint64_t begin = range.ranges.offset(i);
    const std::uint64_t end = begin + range.ranges.bytes(i).size_bytes();
    FUZZ_CHECK(begin % RangeItem::kChunkBytes == 0 && (i == 0 || begin > next));
    FUZZ_CHECK(end % RangeItem::kChunkBytes == 0 || end == memory.size());
    next = end;
  }
  FUZZ_CHECK(range.apply_to(std::as_writable_bytes(std::span(memory))).ok());
}

void JournalReplay::apply_intent(const keel::RecoveredIntent& intent) {
  FUZZ_CHECK(done_.count(intent.id) == 0 && taken_back_.count(intent.id) == 0);
  state_.intents.insert_or_assign(intent.id, copy_of(intent.payload));
  std::erase(in_order_, intent.id);
  in_order_.push_back(intent.id);
}

void JournalReplay::apply_done(const keel::RecoveredDone& done) {
  FUZZ_CHECK(done_.insert(done.id).second && taken_back_.count(done.id) == 0);
  state_.intents.erase(done.id);
  std::erase(in_order_, done.id);
}

}  // namespace keel_fuzz
