#include "release_call.h"

#include "keel/base/mutex.h"

namespace keel {

// Of a thread that makes the call, on its stack.
struct CallOfRelease {
  const LogItem* const item;
  const CallOfRelease* const outer;  // that of another item, out of which this one is made
  bool destroyed = false;            // guarded by the mutex
};

namespace {

// One for all items: it is held for a look at one of them, and an item does not know its journal.
Mutex g_mutex{LockRank::kLeaf};
thread_local const CallOfRelease* t_innermost = nullptr;

}  // namespace

bool ReleaseCall::make(LogItem& item, bool aborted) {
  CallOfRelease call{&item, t_innermost};
  t_innermost = &call;
  {
    MutexLock lock(g_mutex);
    ItemAccess::call(item) = &call;
  }
  ItemAccess::release(item, aborted);
  t_innermost = call.outer;
  MutexLock lock(g_mutex);
  if (call.destroyed) {
    return false;
  }
  ItemAccess::call(item) = nullptr;
  return !ItemAccess::stop_holding(item);
}

bool ReleaseCall::ends_with(LogItem& item) {
  MutexLock lock(g_mutex);
  CallOfRelease* call = ItemAccess::call(item);
  if (call == nullptr) {
    return ItemAccess::state(item) == 0;  // It has ended since the caller looked.
  }
  if (ItemAccess::is_known(item)) {
    return false;
  }
  call->destroyed = true;
  return true;
}

bool ReleaseCall::is_under_way(const LogItem& item) {
  MutexLock lock(g_mutex);
  return ItemAccess::call(item) != nullptr;
}

bool ReleaseCall::is_here(const LogItem& item) {
  const CallOfRelease* call = t_innermost;
  while (call != nullptr && call->item != &item) {
    call = call->outer;
  }
  if (call == nullptr) {
    return false;
  }
  // Or another stands where it stood.
  MutexLock lock(g_mutex);
  return !call->destroyed;
}

}  // namespace keel
