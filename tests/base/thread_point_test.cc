// The hook at points where another thread might come between: for threads that nobody schedules.
#include <doctest/doctest.h>

#include "keel/base/mutex.h"
#include "keel/base/thread_scheduler.h"

#if defined(KEEL_DEBUG)

namespace {

thread_local int t_locks = 0;
void count_locks(keel::ThreadPoint what) { t_locks += what == keel::ThreadPoint::kLock ? 1 : 0; }

}  // namespace

TEST_CASE("a hook hears of a thread's points while it is set, and nobody does after") {
  keel::Mutex mutex{keel::LockRank::kJournalContext};
  const keel::ThreadPointHook before = keel::set_thread_point_hook(count_locks);
  { const keel::MutexLock guard(mutex); }
  CHECK(t_locks == 1);
  keel::thread_point(keel::ThreadPoint::kYield);
  CHECK(t_locks == 1);
  const bool was_ours = keel::set_thread_point_hook(nullptr) == count_locks;
  CHECK(was_ours);
  { const keel::MutexLock guard(mutex); }
  CHECK(t_locks == 1);
  (void)keel::set_thread_point_hook(before);
}

#endif
