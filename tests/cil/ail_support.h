// An AIL's items as the journal takes them out, without telling anybody.
#pragma once

#include "ail.h"

namespace keel_test {

// Journal::release().
inline bool forget(keel::Ail& ail, keel::LogItem& item) { return ail.forget(item, false); }

// Ends a hold; `if_wanted`: the item leaves only if it is marked.
inline void let_go(keel::Ail& ail, keel::LogItem& item, bool if_wanted) {
  bool again = ail.leave(item, if_wanted);
  while (again) {
    again = !keel::ItemAccess::stop_holding(item) && ail.leave(item, true);
  }
}

inline keel::LogItem* take_first(keel::Ail& ail) {
  const keel::Ail::Removed removed = ail.remove_first();
  if (removed.held) {
    (void)keel::ItemAccess::stop_holding(*removed.item);
  }
  return removed.item;
}

}  // namespace keel_test
