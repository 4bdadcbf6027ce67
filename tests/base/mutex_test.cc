#include "keel/base/mutex.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "keel/base/os.h"
#include "support/death.h"

using keel::CondVar;
using keel::LockRank;
using keel::Mutex;
using keel::MutexLock;
using keel::TurnLock;
using keel::TurnMutex;
using keel_test::run_in_child;

namespace {

constexpr std::uint64_t kMillisecondNs = 1'000'000;

// A thread that takes a lock, and whether it has it, waits for it or has yet to run: no clock tells
// that of a machine that is busy.
class Taker {
 public:
  template <typename Lock, typename Lockable>
  Taker(std::in_place_type_t<Lock> /*lock*/, Lockable& mutex)
      : thread_([this, &mutex] {
          // What a thread's first lock allocates it has then.
          Mutex other(LockRank::kWindow);
          { const MutexLock lock(other); }
          id_ = ::gettid();
          const Lock lock(mutex);
          in_ = true;
        }) {}
  Taker(const Taker&) = delete;
  Taker& operator=(const Taker&) = delete;
  ~Taker() { thread_.join(); }

  // Waits for one or the other: false if it sleeps before the lock.
  [[nodiscard]] bool gets_in() const {
    while (!in_ && !sleeps()) {
      std::this_thread::yield();
    }
    return in_;
  }
  [[nodiscard]] bool in() const { return in_; }

 private:
  // Asleep whenever it is looked at: not for a moment, in something else.
  [[nodiscard]] bool sleeps() const {
    for (int looks = 0; looks < 5; ++looks) {
      if (id_ == 0 || state() != 'S') {
        return false;
      }
      keel::os().sleep_ns(kMillisecondNs);
    }
    return true;
  }
  [[nodiscard]] char state() const {
    std::ifstream file("/proc/self/task/" + std::to_string(id_) + "/stat");
    std::string line;
    std::getline(file, line);  // "ID (NAME) STATE ..."
    const auto end = line.rfind(") ");
    return end == std::string::npos ? '?' : line[end + 2];
  }

  std::atomic<bool> in_{false};
  std::atomic<pid_t> id_{0};
  std::thread thread_;
};

#if defined(KEEL_DEBUG)
// The analysis would refuse to compile this: a case for the check at run time.
void take_two_of_one_rank(bool same) KEEL_NO_THREAD_SAFETY_ANALYSIS {
  Mutex first(LockRank::kWindow);
  Mutex second(LockRank::kWindow);
  first.lock();
  (same ? first : second).lock();
}
#endif

struct Gate {
  Mutex mutex{LockRank::kLeaf};
  CondVar changed;
  int value KEEL_GUARDED_BY(mutex) = 0;
};

}  // namespace

TEST_CASE("who waits for a turn mutex has it before who gives it back and wants it again") {
  TurnMutex mutex(LockRank::kPoolTurn, LockRank::kPool);
  mutex.lock();
  const Taker waiter(std::in_place_type<TurnLock>, mutex);
  CHECK_FALSE(waiter.gets_in());
  mutex.unlock();
  mutex.lock();
  CHECK(waiter.in());
  mutex.unlock();
}

TEST_CASE("locks taken in the order of their ranks are fine, also again and from other threads") {
  Mutex outer(LockRank::kPool);
  Mutex inner(LockRank::kWindow);
  for (int i = 0; i < 3; ++i) {
    const MutexLock a(outer);
    const MutexLock b(inner);
  }
  const MutexLock b(inner);
  // Another thread's locks are not this one's.
  std::thread([&outer] { const MutexLock a(outer); }).join();
}

#if defined(KEEL_DEBUG)
TEST_CASE("taking a lock against the order aborts with both ranks") {
  const auto ending = run_in_child([] {
    Mutex outer(LockRank::kPool);
    Mutex inner(LockRank::kWindow);
    const MutexLock b(inner);
    const MutexLock a(outer);
  });
  CHECK(ending.aborted_with("lock order: held rank, wanted rank (0x64=100, 0x46=70"));
}

TEST_CASE("two locks of one rank, and one lock twice, abort rather than wait for ever") {
  CHECK(run_in_child([] { take_two_of_one_rank(false); }).aborted_with("lock order"));
  CHECK(run_in_child([] { take_two_of_one_rank(true); }).aborted_with("lock order"));
}

TEST_CASE("an allocation that may reclaim is made without a lock, or aborts") {
  keel::lock_rank_may_reclaim();
  const auto ending = run_in_child([] {
    Mutex held(LockRank::kJournalPush);
    const MutexLock lock(held);
    keel::lock_rank_may_reclaim();
  });
  CHECK(ending.aborted_with("an allocation that may reclaim, under a lock: its rank (0x28=40"));
}

TEST_CASE("locks may be released in any order, but only by who holds them") {
  Mutex outer(LockRank::kPool);
  Mutex inner(LockRank::kWindow);
  outer.lock();
  inner.lock();
  outer.unlock();
  inner.unlock();
  keel::lock_rank_acquire(LockRank::kPool);
  keel::lock_rank_release(LockRank::kPool);
  const auto ending = run_in_child([] { keel::lock_rank_release(LockRank::kPool); });
  CHECK(ending.aborted_with("not held"));
}
#endif

TEST_CASE("a condition variable hands a value from thread to thread") {
  Gate gate;
  std::thread other([&gate] {
    const MutexLock lock(gate.mutex);
    while (gate.value != 1) {
      gate.changed.wait(gate.mutex);
    }
    gate.value = 2;
    gate.changed.notify_all();
  });
  {
    const MutexLock lock(gate.mutex);
    gate.value = 1;
    gate.changed.notify_all();
    while (gate.value != 2) {
      // The largest timeout must not count as one that has passed.
      CHECK(gate.changed.wait_for(gate.mutex, std::numeric_limits<std::uint64_t>::max()));
    }
  }
  other.join();
}

TEST_CASE("a wait that nobody ends returns false after its timeout, holding the lock") {
  Gate gate;
  const std::uint64_t start = keel::os().monotonic_ns();
  const MutexLock lock(gate.mutex);
  while (gate.changed.wait_for(gate.mutex, 5 * kMillisecondNs)) {
  }
  gate.value = 1;
  CHECK(keel::os().monotonic_ns() - start >= 5 * kMillisecondNs);
}

TEST_CASE("a mutex keeps threads apart") {
  Gate gate;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&gate] {
      for (int n = 0; n < 2000; ++n) {
        const MutexLock lock(gate.mutex);
        ++gate.value;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const MutexLock lock(gate.mutex);
  CHECK(gate.value == 8000);
}
