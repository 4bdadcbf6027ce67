// ReleaseCall: one call of LogItem::release(), from before it until after it.
//
// The client may destroy the item in that call, or as soon as the call has told it, on any thread.
// It may also commit the item again meanwhile, and release that. So:
//
// I1 While the call is under way the item is ItemState::kHeld by the thread that makes it: nobody
//    else lets go of the item, but leaves a mark.
// I2 The destructor of an item that is held by such a call says so to it, and the item is not
//    touched again.
#pragma once

#include "log_vector.h"

namespace keel {

class ReleaseCall {
 public:
  // Calls release() of an item that the caller holds. True if the item is still held then, because
  // it is to be let go of once more. Else it is held no more, or gone.
  [[nodiscard]] static bool make(LogItem& item, bool aborted);
  // By the item's destructor: true if it is destroyed as release() allows.
  [[nodiscard]] static bool ends_with(LogItem& item);
  // Some thread is in release() of that item.
  [[nodiscard]] static bool is_under_way(const LogItem& item);
  // This thread is in release() of that item, which is not touched.
  [[nodiscard]] static bool is_here(const LogItem& item);
};

}  // namespace keel
