#include "release_call.h"

#include <thread>

#include "keel/base/mutex.h"

namespace keel {

// Of a thread that makes the call, on its stack; guarded by the mutex.
struct CallOfRelease {
  const std::thread::id thread = std::this_thread::get_id();
  bool destroyed = false;
};

namespace {

// One for all items: it is held for a look at one of them, and an item does not know its journal.
Mutex g_mutex{LockRank::kLeaf};

}  // namespace

bool ReleaseCall::make(LogItem& item, bool aborted) {
  CallOfRelease call;
  {
    MutexLock lock(g_mutex);
    ItemAccess::call(item) = &call;
  }
  ItemAccess::release(item, aborted);
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
  if (call == nullptr || ItemAccess::is_known(item)) {
    return false;
  }
  call->destroyed = true;
  return true;
}

bool ReleaseCall::is_here(const LogItem& item) {
  MutexLock lock(g_mutex);
  const CallOfRelease* call = ItemAccess::call(item);
  return call != nullptr && call->thread == std::this_thread::get_id();
}

}  // namespace keel
