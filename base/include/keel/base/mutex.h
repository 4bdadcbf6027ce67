// Locks that clang's thread-safety analysis sees and whose order is checked in debug builds.
//
// Thin covers of the standard ones: they sleep, so TSan and perf understand them. A lock that is
// only ever held for well under a microsecond may try for about that long before it sleeps
// (Mutex::Wait::kSpin): going to sleep and being woken costs tens of microseconds.
//
// In debug builds each of them asks the thread scheduler first (thread_scheduler.h): what the
// functions `..._in_turn` do if one owns the thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "keel/base/lock_rank.h"
#include "keel/base/thread_annotations.h"
#include "keel/base/thread_scheduler.h"

#if defined(KEEL_DEBUG)
#define KEEL_RANK_ACQUIRE(rank) ::keel::lock_rank_acquire(rank)
#define KEEL_RANK_RELEASE(rank) ::keel::lock_rank_release(rank)
#else
#define KEEL_RANK_ACQUIRE(rank) (void)(rank)
#define KEEL_RANK_RELEASE(rank) (void)(rank)
#endif

namespace keel {

class KEEL_CAPABILITY("mutex") Mutex {
 public:
  enum class Wait : std::uint8_t { kSleep, kSpin };

  explicit Mutex(LockRank rank, Wait wait = Wait::kSleep) : rank_(rank), wait_(wait) {}
  // For one of an array, before it is used.
  void set_rank(LockRank rank) { rank_ = rank; }
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() KEEL_ACQUIRE() {
    KEEL_RANK_ACQUIRE(rank_);
#if defined(KEEL_DEBUG)
    if (lock_in_turn()) {
      return;
    }
#endif
    if (!mutex_.try_lock()) [[unlikely]] {
      lock_contended();
    }
  }
  [[nodiscard]] bool try_lock() KEEL_TRY_ACQUIRE(true) {
    thread_point(ThreadPoint::kTryLock, static_cast<std::uint32_t>(rank_));
    if (!mutex_.try_lock()) {
      return false;
    }
    KEEL_RANK_ACQUIRE(rank_);
    note_acquired();
    return true;
  }
  void unlock() KEEL_RELEASE() {
    KEEL_RANK_RELEASE(rank_);  // First: whoever takes the mutex next may end its life.
    mutex_.unlock();
    note_released();
  }

 private:
  friend class CondVar;
  void lock_contended();
#if defined(KEEL_DEBUG)
  bool lock_in_turn();
  void note_acquired();
  void note_released();
#else
  void note_acquired() {}
  void note_released() {}
#endif

  std::mutex mutex_;
  LockRank rank_;
  Wait wait_;
};

class KEEL_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) KEEL_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() KEEL_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// A mutex that who waits for it has before who only just gave it back: of those who wait one has
// the turn, and all others wait for that. For loops that let others in between two holds: a Mutex
// has no order, and such a loop has it again before a sleeper is awake, a thousand times in a row.
// Nor have those an order who wait for the turn. Not for a CondVar.
class KEEL_CAPABILITY("turn mutex") TurnMutex {
 public:
  // The turn's rank comes before the mutex's own.
  TurnMutex(LockRank turn, LockRank rank) : turn_(turn), mutex_(rank) {}

  void lock() KEEL_ACQUIRE() KEEL_NO_THREAD_SAFETY_ANALYSIS {
    const MutexLock turn(turn_);
    mutex_.lock();
  }
  void unlock() KEEL_RELEASE() KEEL_NO_THREAD_SAFETY_ANALYSIS { mutex_.unlock(); }

 private:
  Mutex turn_;
  Mutex mutex_;
};

class KEEL_SCOPED_CAPABILITY TurnLock {
 public:
  explicit TurnLock(TurnMutex& mutex) KEEL_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~TurnLock() KEEL_RELEASE() { mutex_.unlock(); }
  TurnLock(const TurnLock&) = delete;
  TurnLock& operator=(const TurnLock&) = delete;

 private:
  TurnMutex& mutex_;
};

// Waits keep the mutex's rank: the waiter holds nothing else while it sleeps.
class CondVar {
 public:
  // Blocks until notified; spurious wake-ups happen, so call it in a loop.
  void wait(Mutex& mutex) KEEL_REQUIRES(mutex) {
#if defined(KEEL_DEBUG)
    if (bool woken = true; wait_in_turn(mutex, ThreadScheduler::kForever, woken)) {
      return;
    }
#endif
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // Returns false if `timeout_ns` passed. Any value is fine: the largest waits for ever.
  bool wait_for(Mutex& mutex, std::uint64_t timeout_ns) KEEL_REQUIRES(mutex) {
#if defined(KEEL_DEBUG)
    if (bool woken = true; wait_in_turn(mutex, timeout_ns, woken)) {
      return woken;
    }
#endif
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    // 2^61 ns are 73 years; more would wrap when the standard library adds it to its clock.
    const auto bounded = static_cast<std::int64_t>(std::min(timeout_ns, std::uint64_t{1} << 61));
    const auto status = condition_.wait_for(lock, std::chrono::nanoseconds(bounded));
    lock.release();
    return status == std::cv_status::no_timeout;
  }
#if defined(KEEL_DEBUG)
  void notify_one();
  void notify_all();
#else
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }
#endif

 private:
#if defined(KEEL_DEBUG)
  // False if no scheduler owns the thread.
  bool wait_in_turn(Mutex& mutex, std::uint64_t timeout_ns, bool& woken);
#endif

  std::condition_variable condition_;
};

}  // namespace keel
