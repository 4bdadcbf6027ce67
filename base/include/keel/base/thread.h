// Thread: std::thread behind the seam of threads (thread_scheduler.h), for all of keel's own.
//
// In release builds it is std::thread with a name, and nothing else. Threads: as std::thread.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <thread>
#include <utility>

#include "keel/base/thread_scheduler.h"

namespace keel {

class Thread {
 public:
  Thread() = default;
  // Runs `body` on a new thread. `name`, of static storage and at most 15 characters, is what top,
  // perf and a debugger call it.
  // Errors: throws as std::thread does.
  template <class Body>
  Thread(const char* name, Body body) {
#if defined(KEEL_DEBUG)
    if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
      start_owned(*scheduler, name, std::move(body));
      return;
    }
#endif
    thread_ = std::thread([name, body = std::move(body)]() mutable {
      (void)pthread_setname_np(pthread_self(), name);  // Only a name.
      body();
    });
  }

  [[nodiscard]] bool joinable() const { return thread_.joinable(); }
  void join() {
#if defined(KEEL_DEBUG)
    if (scheduler_ != nullptr) {
      scheduler_->join(id_);
      scheduler_ = nullptr;
    }
#endif
    thread_.join();
  }

 private:
#if defined(KEEL_DEBUG)
  template <class Body>
  void start_owned(ThreadScheduler& scheduler, const char* name, Body body) {
    const std::uint32_t id = scheduler.announce(name);
    try {
      thread_ = std::thread([&scheduler, id, body = std::move(body)]() mutable {
        (void)set_thread_scheduler(&scheduler);
        scheduler.begin(id);
        body();
        scheduler.end(id);
        (void)set_thread_scheduler(nullptr);
      });
    } catch (...) {
      scheduler.withdraw(id);
      throw;
    }
    scheduler_ = &scheduler;
    id_ = id;
    scheduler.point(ThreadPoint::kStart, id);
  }

  ThreadScheduler* scheduler_ = nullptr;
  std::uint32_t id_ = 0;
#endif
  std::thread thread_;
};

// Lets others go on.
inline void yield_thread() {
#if defined(KEEL_DEBUG)
  if (thread_scheduler() != nullptr) {
    thread_point(ThreadPoint::kYield);
    return;
  }
#endif
  ::sched_yield();
}

}  // namespace keel
