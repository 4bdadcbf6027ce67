#include "stable_sequence.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

using namespace keel;

namespace {

// As force() waits.
Status wait_for(StableSequence& stable, Sequence sequence) {
  StableSequence::Waiter waiter;
  waiter.sequence = sequence;
  stable.enter(waiter);
  const auto wake = stable.wait(waiter, WaitWord::kForever);
  CHECK(wake != StableSequence::Wake::kCalledUpon);
  return wake == StableSequence::Wake::kStable ? Status{} : stable.status();
}

// Until so many threads wait. There is no other way to see that they do.
void await_waiters(StableSequence& stable) {
  while (stable.longest().sequence == Sequence{}) {
    std::this_thread::yield();
  }
}

}  // namespace

TEST_CASE("each waiter wakes when its own sequence is stable") {
  StableSequence stable(Sequence(3));
  CHECK(stable.now() == Sequence(3));
  CHECK(wait_for(stable, Sequence(0)).ok());
  CHECK(wait_for(stable, Sequence(3)).ok());
  std::array<std::atomic<bool>, 5> woken{};
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < woken.size(); ++i) {
    threads.emplace_back([&, i] {
      CHECK(wait_for(stable, Sequence(4 + i)).ok());
      CHECK(stable.now() >= Sequence(4 + i));
      woken[i] = true;
    });
  }
  stable.advance(Sequence(5));
  threads[0].join();
  threads[1].join();
  for (std::size_t i = 2; i < woken.size(); ++i) {
    CHECK_FALSE(woken[i]);
  }
  stable.advance(Sequence(100));
  for (std::size_t i = 2; i < woken.size(); ++i) {
    threads[i].join();
  }
}

TEST_CASE("the first error is kept, what was stable before it stays stable") {
  StableSequence stable(Sequence(0));
  CHECK(stable.status().ok());
  CHECK_FALSE(stable.failed());
  std::vector<std::thread> threads;
  std::atomic<int> errors{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const Status status = wait_for(stable, Sequence(2));
      errors += !status.ok() && status.error().value == 1 ? 1 : 0;
    });
  }
  stable.advance(Sequence(1));
  stable.fail({Errc::kIo, EIO, "first", 1});
  stable.fail({Errc::kShutdown, 0, "second", 2});
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(errors == 4);
  CHECK(stable.failed());
  CHECK(wait_for(stable, Sequence(1)).ok());
  const Status status = stable.status();
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().value == 1);
}

TEST_CASE("a waiter gives up at its deadline, and the others wait on") {
  StableSequence stable(Sequence(0));
  StableSequence::Waiter waiter;
  waiter.sequence = Sequence(1);
  stable.enter(waiter);
  CHECK(stable.wait(waiter, 1) == StableSequence::Wake::kTimeout);
  CHECK(stable.longest().sequence == Sequence{});
  std::thread other([&] { CHECK(wait_for(stable, Sequence(1)).ok()); });
  await_waiters(stable);
  stable.advance(Sequence(1));
  other.join();
}

TEST_CASE("the first who waits for the open context is called upon, nobody else is") {
  StableSequence stable(Sequence(0));
  std::atomic<int> called{0};
  const auto wait = [&](std::uint64_t sequence) {
    StableSequence::Waiter waiter;
    waiter.sequence = Sequence(sequence);
    stable.enter(waiter);
    for (;;) {
      const auto wake = stable.wait(waiter, WaitWord::kForever);
      if (wake != StableSequence::Wake::kCalledUpon) {
        CHECK(wake == StableSequence::Wake::kStable);
        return;
      }
      called += static_cast<int>(sequence);
    }
  };
  std::thread closed([&] { wait(1); });
  await_waiters(stable);
  CHECK_FALSE(stable.call_upon(Sequence(2)));
  std::thread open([&] { wait(2); });
  while (!stable.call_upon(Sequence(2))) {
    std::this_thread::yield();
  }
  while (called != 2) {
    std::this_thread::yield();
  }
  stable.advance(Sequence(2));
  closed.join();
  open.join();
  CHECK(called == 2);
}

TEST_CASE("one that only looks on is neither called upon nor counted among those who force") {
  StableSequence stable(Sequence(0));
  StableSequence::Waiter onlooker, forcer;
  onlooker.sequence = forcer.sequence = Sequence(1);
  onlooker.looks_on = true;
  stable.enter(onlooker);
  CHECK_FALSE(stable.call_upon(Sequence(1)));
  CHECK(stable.longest().sequence == Sequence{});
  stable.enter(forcer);
  CHECK(stable.longest().sequence == Sequence(1));
  CHECK(stable.call_upon(Sequence(1)));
  CHECK(forcer.wake == StableSequence::Wake::kCalledUpon);
  CHECK(onlooker.wake == StableSequence::Wake::kWaiting);
  stable.advance(Sequence(1));
  CHECK(onlooker.wake == StableSequence::Wake::kStable);
}

TEST_CASE("one who was called upon and has not come yet is not called upon again, the next is") {
  StableSequence stable(Sequence(0));
  StableSequence::Waiter first, second;
  first.sequence = second.sequence = Sequence(1);
  stable.enter(first);
  stable.enter(second);
  CHECK(stable.call_upon(Sequence(1)));
  CHECK(first.wake == StableSequence::Wake::kCalledUpon);
  CHECK(second.wake == StableSequence::Wake::kWaiting);
  CHECK(stable.call_upon(Sequence(1)));
  CHECK(second.wake == StableSequence::Wake::kCalledUpon);
  CHECK_FALSE(stable.call_upon(Sequence(1)));
  stable.call_upon(first);
  // Its call comes before its deadline, whichever has passed.
  CHECK(stable.wait(first, 1) == StableSequence::Wake::kCalledUpon);
  CHECK(stable.wait(first, 1) == StableSequence::Wake::kTimeout);
  stable.advance(Sequence(1));
  CHECK(second.wake == StableSequence::Wake::kStable);
}
