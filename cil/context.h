// Context: one checkpoint being gathered. The list of the items that committed to it since the last
// switch, and what they add to the log.
#pragma once

#include <cstdint>

#include "keel/base/units.h"
#include "keel/cil/log_item.h"

namespace keel {

struct Context {
  Sequence sequence{};
  LogItem* first = nullptr;  // in order of first insertion
  LogItem* last = nullptr;
  std::uint64_t items = 0;
  std::uint64_t packed_bytes = 0;  // lengths of the two streams
  std::uint64_t bulk_blocks = 0;

  [[nodiscard]] bool empty() const { return items == 0; }
};

// What the context takes in the log, 0 if it is empty.
[[nodiscard]] std::uint64_t context_bytes(const Context& context, std::uint32_t block_bytes);

// Walks the list and aborts if the sums do not match. Needs the context lock exclusively.
void audit(const Context& context);

// Puts an item at the end of the list.
void append(Context& context, LogItem& item);

// Takes every item's active vector away from it, stamps it with the item's order and chains them in
// order of first insertion: sort_by_order() brings them into commit order, outside the locks.
// Needs the context lock exclusively. No allocation.
[[nodiscard]] LogVector* detach_vectors(Context& context);

// Stable sort of a chain by order. No allocation.
[[nodiscard]] LogVector* sort_by_order(LogVector* first);

}  // namespace keel
