#include "keel/base/thread_scheduler.h"

#if defined(KEEL_DEBUG)

#include <atomic>

namespace keel {
namespace {

constinit thread_local ThreadScheduler* t_scheduler = nullptr;
// Acquire pairs with the release of its setter: what the hook reads was written before.
constinit std::atomic<ThreadPointHook> g_hook{nullptr};

}  // namespace

ThreadScheduler* thread_scheduler() { return t_scheduler; }

ThreadScheduler* set_thread_scheduler(ThreadScheduler* scheduler) {
  ThreadScheduler* before = t_scheduler;
  t_scheduler = scheduler;
  return before;
}

ThreadPointHook set_thread_point_hook(ThreadPointHook hook) {
  return g_hook.exchange(hook, std::memory_order_acq_rel);
}

void thread_point(ThreadPoint what, std::uint32_t detail) {
  if (ThreadScheduler* scheduler = t_scheduler; scheduler != nullptr) {
    scheduler->point(what, detail);
  } else if (ThreadPointHook hook = g_hook.load(std::memory_order_acquire); hook != nullptr) {
    hook(what);
  }
}

}  // namespace keel

#endif
