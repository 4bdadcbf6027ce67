#include "keel/base/mutex.h"

#include <pthread.h>

#include "keel/base/check.h"

namespace keel {
namespace {
void check_pthread(int error, const char* call) {
  KEEL_CHECK(error == 0, call, static_cast<std::uint64_t>(error));
}

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
  check_pthread(pthread_rwlock_wrlock(&lock_), "pthread_rwlock_wrlock");
}

void SharedMutex::unlock() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_RELEASE(rank_);
  check_pthread(pthread_rwlock_unlock(&lock_), "pthread_rwlock_unlock");
}

void SharedMutex::lock_shared() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_ACQUIRE(rank_);
  check_pthread(pthread_rwlock_rdlock(&lock_), "pthread_rwlock_rdlock");
}

void SharedMutex::unlock_shared() KEEL_NO_THREAD_SAFETY_ANALYSIS {
  KEEL_RANK_RELEASE(rank_);
  check_pthread(pthread_rwlock_unlock(&lock_), "pthread_rwlock_unlock");
}

}  // namespace keel
