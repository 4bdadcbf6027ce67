#include "log_space.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "log/format.h"

using namespace keel;

namespace {

// A push thread in miniature: every nudge is a pass, run on the caller's thread.
struct Pushed {
  LogSpace* space = nullptr;
  std::atomic<int> nudges{0};
  std::function<void()> during_pass;

  std::function<void()> hook() {
    return [this] {
      ++nudges;
      space->pass_begins();
      if (during_pass) {
        during_pass();
      }
      space->pass_ended();
    };
  }
};

void wait_for_waiter(const LogSpace& space) {
  while (!space.wanted()) {
    std::this_thread::yield();
  }
}

}  // namespace

TEST_CASE("space is granted while log and checkpoint have it, and comes back") {
  LogSpace space({1000, 250}, Lsn(0), Lsn(0), [] {});
  CHECK(space.reserve(100).ok());
  CHECK(space.reserve(150).ok());
  CHECK(space.outstanding() == Bytes(250));
  space.give_back(150);
  CHECK(space.reserve(150).ok());
  space.committed(150, 90);
  CHECK(space.outstanding() == Bytes(100));
  CHECK(space.used() == Bytes(90));
  space.give_back(100);
  CHECK(space.close_context(90) == Lsn(0));
  CHECK(space.used() == Bytes(90));
  space.tail_moved(Lsn(90));
  CHECK(space.used() == Bytes(0));
  const Status large = space.reserve(251);
  REQUIRE_FALSE(large.ok());
  CHECK(large.error().code == Errc::kTooLarge);
}

TEST_CASE("a log that nothing can free is full, and says which LSN holds it") {
  Pushed pushed;
  LogSpace space({1000, 250}, Lsn(4000), Lsn(4900), pushed.hook());
  pushed.space = &space;
  const Status full = space.reserve(101);
  REQUIRE_FALSE(full.ok());
  CHECK(full.error().code == Errc::kLogFull);
  CHECK(full.error().value == 4000);
  CHECK(pushed.nudges >= 1);
  CHECK_FALSE(space.wanted());
  CHECK(space.reserve(100).ok());
  // A pass that moves the tail makes room.
  pushed.during_pass = [&] { space.tail_moved(Lsn(4500)); };
  CHECK(space.reserve(150).ok());
  CHECK(space.outstanding() == Bytes(250));
}

TEST_CASE("a waiter waits for open reservations and for the context before it calls the log full") {
  Pushed pushed;
  LogSpace space({1000, 250}, Lsn(0), Lsn(0), pushed.hook());
  pushed.space = &space;
  REQUIRE(space.reserve(200).ok());
  std::atomic<bool> granted{false};
  std::thread waiter([&] {
    CHECK(space.reserve(100).ok());
    granted = true;
  });
  wait_for_waiter(space);
  CHECK_FALSE(granted);
  // The reservation becomes part of the context: still no room, so the waiter asks for a push.
  pushed.during_pass = [&] {
    if (space.used().value() != 0) {
      (void)space.close_context(180);
    }
  };
  space.committed(200, 180);
  waiter.join();
  CHECK(granted);
}

TEST_CASE("waiters are served in the order in which they came; none overtakes") {
  LogSpace space({1000, 100}, Lsn(0), Lsn(0), [] {});
  REQUIRE(space.reserve(60).ok());
  std::thread large([&] { CHECK(space.reserve(60).ok()); });
  wait_for_waiter(space);
  std::thread small([&] { CHECK(space.reserve(30).ok()); });  // would fit at once
  for (int i = 0; i < 2000; ++i) {
    CHECK(space.outstanding() == Bytes(60));
    std::this_thread::yield();
  }
  space.give_back(60);
  large.join();
  small.join();
  CHECK(space.outstanding() == Bytes(90));
}

TEST_CASE("a failure reaches every waiter and every later call") {
  LogSpace space({1000, 100}, Lsn(0), Lsn(0), [] {});
  REQUIRE(space.reserve(100).ok());
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&] {
      const Status status = space.reserve(50);
      failed += !status.ok() && status.error().code == Errc::kIo ? 1 : 0;
    });
  }
  wait_for_waiter(space);
  space.fail({Errc::kIo, EIO, "test", 7});
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(failed == 5);
  const Status late = space.reserve(1);
  REQUIRE_FALSE(late.ok());
  CHECK(late.error().value == 7);
  space.give_back(100);
}

TEST_CASE("threads that reserve, commit and push never exceed the log") {
  std::atomic<int> nudged{0};
  std::atomic<bool> done{false};
  LogSpace space({10000, 2500}, Lsn(0), Lsn(0), [&] { ++nudged; });
  std::thread pusher([&] {
    // Every pass pushes the context and frees it all.
    Lsn head(0);
    while (!done) {
      if (nudged.exchange(0) == 0) {
        std::this_thread::yield();
        continue;
      }
      space.pass_begins();
      const std::uint64_t context = space.used().value();
      if (context != 0) {
        head = space.close_context(context) + Bytes(context);
      }
      space.tail_moved(head);
      space.pass_ended();
    }
  });
  std::vector<std::thread> threads;
  Mutex context_mutex{LockRank::kJournalCil};
  for (std::uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 2000; ++i) {
        const std::uint64_t bytes = 100 + (i * 37 + t * 11) % 1900;
        const Status status = space.reserve(bytes);
        if (!status) {
          CHECK(status.error().code == Errc::kLogFull);  // another's context at a bad moment
          continue;
        }
        space.give_back(bytes);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  done = true;
  pusher.join();
  CHECK(space.outstanding() == Bytes(0));
}

TEST_CASE("a log is not called full while a pass that was asked for is still to come") {
  std::atomic<int> nudges{0};
  LogSpace space({1000, 250}, Lsn(0), Lsn(900), [&] { ++nudges; });
  REQUIRE(space.reserve(50).ok());
  Status status;
  std::thread waiter([&] { status = space.reserve(200); });
  while (nudges == 0) {
    std::this_thread::yield();
  }
  space.pass_begins();  // the one that the waiter asked for: nothing to be had
  space.pass_ended();
  // A client releases the items at the tail, which asks for a pass; before it comes, another
  // transaction is cancelled.
  space.pass_asked();
  space.give_back(50);
  for (int i = 0; i < 20000; ++i) {
    std::this_thread::yield();
  }
  CHECK(space.wanted());
  space.pass_begins();
  space.tail_moved(Lsn(500));
  space.pass_ended();
  waiter.join();
  CHECK(status.ok());
}
