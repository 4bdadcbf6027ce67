#include "keel/base/mutex.h"

namespace keel {
namespace {
#if defined(KEEL_DEBUG)
constexpr std::uint32_t kEverybody = ThreadScheduler::kEverybody;
constexpr std::uint64_t kForever = ThreadScheduler::kForever;

std::uint32_t number(LockRank rank) { return static_cast<std::uint32_t>(rank); }
#endif

constexpr unsigned kMaxPauses = 64;

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}
}  // namespace

void Mutex::lock_contended() {
  // With pauses that double to 64, a microsecond or two.
  for (unsigned pauses = 1; wait_ == Wait::kSpin && pauses <= kMaxPauses; pauses *= 2) {
    for (unsigned i = 0; i < pauses; ++i) {
      cpu_pause();
    }
    if (mutex_.try_lock()) {
      return;
    }
  }
  mutex_.lock();
}

#if defined(KEEL_DEBUG)

bool Mutex::lock_in_turn() {
  thread_point(ThreadPoint::kLock, number(rank_));
  ThreadScheduler* scheduler = thread_scheduler();
  if (scheduler == nullptr) {
    return false;
  }
  while (!mutex_.try_lock()) {
    (void)scheduler->wait(ThreadPoint::kLock, this, kEverybody, kForever);
  }
  scheduler->acquired(this, number(rank_));
  return true;
}

void Mutex::note_acquired() {
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    scheduler->acquired(this, number(rank_));
  }
}

// The mutex may be gone: whoever was waiting may have been about to destroy it.
void Mutex::note_released() {
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    scheduler->released(this);
    scheduler->wake(this, kEverybody, 1);
  }
  thread_point(ThreadPoint::kUnlock);
}

bool CondVar::wait_in_turn(Mutex& mutex, std::uint64_t timeout_ns, bool& woken) {
  thread_point(ThreadPoint::kCondVar, number(mutex.rank_));
  ThreadScheduler* scheduler = thread_scheduler();
  if (scheduler == nullptr) {
    return false;
  }
  const std::uint64_t now_ns = scheduler->now_ns();
  mutex.mutex_.unlock();
  scheduler->released(&mutex);
  scheduler->wake(&mutex, kEverybody, 1);
  woken = scheduler->wait(ThreadPoint::kCondVar, this, kEverybody,
                          timeout_ns < kForever - now_ns ? now_ns + timeout_ns : kForever);
  (void)mutex.lock_in_turn();
  return true;
}

void CondVar::notify_one() {
  thread_point(ThreadPoint::kNotify);
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    scheduler->wake(this, kEverybody, 1);
  } else {
    condition_.notify_one();
  }
}

void CondVar::notify_all() {
  thread_point(ThreadPoint::kNotify);
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    scheduler->wake(this, kEverybody, kEverybody);
  } else {
    condition_.notify_all();
  }
}

#endif

}  // namespace keel
