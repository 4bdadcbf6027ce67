#include "support/sim_scheduler.h"

#include <doctest/doctest.h>
#include <pthread.h>

#include <atomic>
#include <deque>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/mutex.h"
#include "keel/base/percpu.h"
#include "keel/base/thread.h"
#include "keel/base/wait_word.h"
#include "support/death.h"
#include "support/sim_scheduled_disk.h"

#if defined(KEEL_DEBUG)

using namespace keel;

namespace {

struct Channel {
  Mutex mutex{LockRank::kLeaf};
  CondVar filled;
  CondVar emptied;
  std::deque<int> items;
};

// Producers and consumers over a queue of two; gives what came out, in order.
std::vector<int> run_queue(SimScheduler& scheduler, bool forgets_to_notify = false) {
  Channel channel;
  std::vector<int> out;
  std::vector<Thread> threads;
  for (int producer = 0; producer < 2; ++producer) {
    threads.emplace_back("producer", [&channel, producer] {
      for (int i = 0; i < 20; ++i) {
        MutexLock lock(channel.mutex);
        while (channel.items.size() == 2) {
          channel.emptied.wait(channel.mutex);
        }
        channel.items.push_back(producer * 100 + i);
        channel.filled.notify_one();
      }
    });
  }
  for (int consumer = 0; consumer < 2; ++consumer) {
    threads.emplace_back("consumer", [&channel, &out, &scheduler, forgets_to_notify] {
      for (int i = 0; i < 20; ++i) {
        MutexLock lock(channel.mutex);
        while (channel.items.empty()) {
          channel.filled.wait(channel.mutex);
        }
        out.push_back(channel.items.front());
        channel.items.pop_front();
        if (!forgets_to_notify) {
          channel.emptied.notify_one();
        }
        scheduler.note("took", "", static_cast<std::uint64_t>(out.back()), current_cpu());
      }
    });
  }
  for (Thread& thread : threads) {
    thread.join();
  }
  return out;
}

struct Run {
  std::uint64_t hash = 0;
  std::vector<int> out;
};

Run run(std::uint64_t seed) {
  SimScheduler scheduler(sim_schedule(seed));
  Run run;
  run.out = run_queue(scheduler);
  run.hash = scheduler.trace().hash();
  return run;
}

}  // namespace

TEST_CASE("a seed gives the same order of threads and other seeds give others") {
  std::set<std::uint64_t> hashes;
  std::set<std::vector<int>> orders;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const Run first = run(seed);
    const Run again = run(seed);
    CHECK(first.hash == again.hash);
    CHECK(first.out == again.out);
    CHECK(first.out.size() == 40);
    hashes.insert(first.hash);
    orders.insert(first.out);
  }
  CHECK(hashes.size() == 50);
  CHECK(orders.size() > 25);
}

TEST_CASE("a wake that is never sent is told as a deadlock, with who waits for what") {
  const keel_test::Ending ending = keel_test::run_in_child([] {
    SimScheduler scheduler({.seed = 3, .spurious_one_in = 0});
    (void)run_queue(scheduler, true);
  });
  CHECK(ending.aborted_with("deadlock"));
  CHECK(ending.errors.find("producer") != std::string::npos);
  CHECK(ending.errors.find("waits in condition") != std::string::npos);
}

TEST_CASE("who holds the lock that others wait for is told") {
  const keel_test::Ending ending = keel_test::run_in_child([] {
    SimScheduler scheduler({.seed = 3, .spurious_one_in = 0});
    Mutex outer(LockRank::kWindow);
    Mutex inner(LockRank::kLeaf);
    CondVar never;
    Thread holder("holder", [&] {
      MutexLock first(outer);
      MutexLock second(inner);
      never.wait(inner);
    });
    scheduler.sleep(ThreadPoint::kSleep, 1'000'000);
    MutexLock lock(outer);
  });
  CHECK(ending.aborted_with("deadlock"));
  CHECK(ending.errors.find("waits in lock (rank 100") != std::string::npos);
  CHECK(ending.errors.find("waits in condition") != std::string::npos);
  CHECK(ending.errors.find("holds rank 100") != std::string::npos);
}

TEST_CASE("a thread of no seed that calls a simulated disk is told, and leaves no trace") {
  const keel_test::Ending ending = keel_test::run_in_child([] {
    SimScheduler scheduler({.seed = 1});
    SimScheduledDisk disk(scheduler, {.seed = 1, .virtual_clock = true}, {});
    const ScopedOs scope(disk);
    std::thread guest([] { (void)os().monotonic_ns(); });
    guest.join();
  });
  CHECK(ending.aborted_with("a simulated disk is called by a thread of no seed"));
}

TEST_CASE("time jumps to the earliest wait when nobody can run") {
  SimScheduler scheduler({.seed = 1, .spurious_one_in = 0});
  std::vector<int> order;
  const auto sleeper = [&](int id, std::uint64_t ns) {
    return [&scheduler, &order, id, ns] {
      scheduler.sleep(ThreadPoint::kSleep, ns);
      order.push_back(id);
    };
  };
  const std::uint64_t before_ns = scheduler.now_ns();
  Thread late("late", sleeper(2, 3'600'000'000'000));
  Thread early("early", sleeper(1, 1'800'000'000'000));
  Mutex mutex(LockRank::kLeaf);
  CondVar never;
  {
    MutexLock lock(mutex);
    CHECK_FALSE(never.wait_for(mutex, 60'000'000'000));
  }
  late.join();
  early.join();
  CHECK(order == std::vector<int>{1, 2});
  CHECK(scheduler.now_ns() - before_ns >= 3'600'000'000'000);
  CHECK(scheduler.now_ns() - before_ns < 3'601'000'000'000);
}

TEST_CASE("a wait word wakes whom it names and gives up at its deadline") {
  SimScheduler scheduler({.seed = 5});
  WaitWord word;
  std::atomic<int> woken{0};
  Thread waiter("waiter", [&] {
    while (woken.load() == 0) {
      const std::uint32_t seen = word.value();
      if (woken.load() == 0) {
        (void)word.wait(seen, 2, WaitWord::kForever);
      }
    }
  });
  scheduler.sleep(ThreadPoint::kSleep, 1000);
  woken = 1;
  word.wake(2);
  waiter.join();
  const std::uint32_t seen = word.value();
  bool timed_out = false;
  for (int i = 0; i < 100 && !timed_out; ++i) {
    timed_out = !word.wait(seen, 1, scheduler.now_ns() + 1000);
  }
  CHECK(timed_out);
}

TEST_CASE("a thread that the system refuses is nobody to wait for") {
  pthread_attr_t before;
  REQUIRE(pthread_getattr_default_np(&before) == 0);
  pthread_attr_t huge;
  REQUIRE(pthread_attr_init(&huge) == 0);
  // A stack as large as all addresses.
  REQUIRE(pthread_attr_setstacksize(&huge, std::size_t{1} << 47) == 0);
  bool ran = false;
  bool refused = false;
  {
    SimScheduler scheduler({.seed = 9});
    REQUIRE(pthread_setattr_default_np(&huge) == 0);
    try {
      Thread never("never", [] {});
    } catch (const std::system_error&) {
      refused = true;
    }
    REQUIRE(pthread_setattr_default_np(&before) == 0);
    Thread other("other", [&ran] { ran = true; });
    other.join();
  }
  CHECK(refused);
  CHECK(ran);
  CHECK(pthread_attr_destroy(&huge) == 0);
  CHECK(pthread_attr_destroy(&before) == 0);
}

TEST_CASE("a thread may be refused and those that started end well") {
  SimScheduler scheduler({.seed = 9, .refuse_thread_one_in = 2});
  int started = 0;
  int refused = 0;
  int ran = 0;
  for (int i = 0; i < 50; ++i) {
    try {
      Thread thread("one", [&] { ++ran; });
      ++started;
      thread.join();
    } catch (const std::system_error&) {
      ++refused;
    }
  }
  CHECK(ran == started);
  CHECK(refused > 5);
  CHECK(started > 5);
}

#endif
