#include "context.h"

#include <array>
#include <utility>

#include "keel/base/check.h"
#include "log/format.h"
#include "log_vector.h"

namespace keel {
namespace {

// Merges two sorted chains; of equals, `a` first.
LogVector* merge(LogVector* a, LogVector* b) {
  LogVector* merged = nullptr;
  LogVector** end = &merged;
  while (a != nullptr && b != nullptr) {
    LogVector*& smaller = b->order < a->order ? b : a;
    *end = smaller;
    end = &smaller->next;
    smaller = smaller->next;
  }
  *end = a != nullptr ? a : b;
  return merged;
}

}  // namespace

std::uint64_t context_bytes(const Context& context, std::uint32_t block_bytes) {
  return context.empty()
             ? 0
             : format::checkpoint_shape(context.packed_bytes, context.bulk_blocks, block_bytes)
                   .bytes;
}

void audit(const Context& context) {
  Context walked{.sequence = context.sequence};
  for (LogItem* item = context.first; item != nullptr; item = ItemAccess::cil_next(*item)) {
    const LogVector* vector = ItemAccess::active(*item);
    KEEL_CHECK(vector != nullptr && vector->item == item && item->pinned(),
               "an item of the context has no vector or no pin", walked.items);
    ++walked.items;
    walked.packed_bytes += vector->packed_bytes;
    walked.bulk_blocks += vector->bulk_blocks;
    walked.last = item;
  }
  KEEL_CHECK(walked.items == context.items && walked.last == context.last, "items of the context",
             walked.items, context.items);
  KEEL_CHECK(
      walked.packed_bytes == context.packed_bytes && walked.bulk_blocks == context.bulk_blocks,
      "stream lengths of the context", walked.packed_bytes, context.packed_bytes,
      walked.bulk_blocks, context.bulk_blocks);
}

void append(Context& context, LogItem& item) {
  ItemAccess::cil_next(item) = nullptr;
  (context.last != nullptr ? ItemAccess::cil_next(*context.last) : context.first) = &item;
  context.last = &item;
  ++context.items;
}

LogVector* detach_vectors(Context& context) {
  LogVector* first = nullptr;
  LogVector** end = &first;
  for (LogItem* item = context.first; item != nullptr;) {
    LogItem* next = ItemAccess::cil_next(*item);
    LogVector* vector = std::exchange(ItemAccess::active(*item), nullptr);
    KEEL_CHECK(vector != nullptr && vector->item == item, "an item of the context has no vector");
    vector->order = ItemAccess::order(*item);
    vector->next = nullptr;
    *end = vector;
    end = &vector->next;
    ItemAccess::cil_next(*item) = nullptr;
    item = next;
  }
  return first;
}

// Bottom-up merge sort: slot i holds a sorted run of 2^i vectors. The list is nearly sorted (only
// relogged items are out of place), but a plain merge of it would be wrong.
LogVector* sort_by_order(LogVector* first) {
  std::array<LogVector*, 64> runs{};
  while (first != nullptr) {
    LogVector* run = std::exchange(first, first->next);
    run->next = nullptr;
    std::size_t i = 0;
    for (; runs[i] != nullptr; ++i) {
      run = merge(std::exchange(runs[i], nullptr), run);
    }
    runs[i] = run;
  }
  LogVector* sorted = nullptr;
  for (LogVector* run : runs) {
    sorted = merge(run, sorted);
  }
  return sorted;
}

}  // namespace keel
