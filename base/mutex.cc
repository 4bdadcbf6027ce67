#include "keel/base/mutex.h"

#include <pthread.h>

#include "keel/base/check.h"

namespace keel {
namespace {
void check_pthread(int error, const char* call) {
  KEEL_CHECK(error == 0, call, static_cast<std::uint64_t>(error));
}

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

bool SharedMutex::lock_in_turn() {
  thread_point(ThreadPoint::kLock, number(rank_));
  ThreadScheduler* scheduler = thread_scheduler();
  if (scheduler == nullptr) {
    return false;
  }
  ++waiting_writers_;
  while (::pthread_rwlock_trywrlock(&lock_) != 0) {
    (void)scheduler->wait(ThreadPoint::kLock, this, kEverybody, kForever);
  }
  --waiting_writers_;
  scheduler->acquired(this, number(rank_));
  return true;
}

bool SharedMutex::lock_shared_in_turn() {
  thread_point(ThreadPoint::kLockShared, number(rank_));
  ThreadScheduler* scheduler = thread_scheduler();
  if (scheduler == nullptr) {
    return false;
  }
  while (waiting_writers_ != 0 || ::pthread_rwlock_tryrdlock(&lock_) != 0) {
    (void)scheduler->wait(ThreadPoint::kLockShared, this, kEverybody, kForever);
  }
  scheduler->acquired(this, number(rank_));
  return true;
}

void SharedMutex::note_released() {
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    scheduler->released(this);
    scheduler->wake(this, kEverybody, kEverybody);
  }
  thread_point(ThreadPoint::kUnlock);
}

#endif

SharedMutex::SharedMutex(LockRank rank) : rank_(rank) {
  pthread_rwlockattr_t attributes;
  check_pthread(pthread_rwlockattr_init(&attributes), "pthread_rwlockattr_init");
  check_pthread(
      pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP),
      "pthread_rwlockattr_setkind_np");
  check_pthread(pthread_rwlock_init(&lock_, &attributes), "pthread_rwlock_init");
  check_pthread(pthread_rwlockattr_destroy(&attributes), "pthread_rwlockattr_destroy");
}

SharedMutex::~SharedMutex() { check_pthread(pthread_rwlock_destroy(&lock_), "rwlock_destroy"); }

void SharedMutex::lock() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_ACQUIRE(rank_);
#if defined(KEEL_DEBUG)
  if (lock_in_turn()) {
    return;
  }
#endif
  check_pthread(pthread_rwlock_wrlock(&lock_), "pthread_rwlock_wrlock");
}

void SharedMutex::unlock() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_RELEASE(rank_);
  check_pthread(pthread_rwlock_unlock(&lock_), "pthread_rwlock_unlock");
#if defined(KEEL_DEBUG)
  note_released();
#endif
}

void SharedMutex::lock_shared() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_ACQUIRE(rank_);
#if defined(KEEL_DEBUG)
  if (lock_shared_in_turn()) {
    return;
  }
#endif
  check_pthread(pthread_rwlock_rdlock(&lock_), "pthread_rwlock_rdlock");
}

void SharedMutex::unlock_shared() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_RELEASE(rank_);
  check_pthread(pthread_rwlock_unlock(&lock_), "pthread_rwlock_unlock");
#if defined(KEEL_DEBUG)
  note_released();
#endif
}

}  // namespace keel
