// Whose turn it is to get log space, and what they are told who ask after the end.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "keel/base/check.h"
#include "log_space.h"
#include "support/gate.h"
#include "support/kernel_threads.h"

using namespace keel;
using namespace keel_test;

namespace {

LogSpace::Helpers no_help() {
  return {[] {}, [] {}, [] { return Sequence{}; }};
}

// Of 250 for a checkpoint 240 are granted, and a thread waits to take back the 60 that are held.
struct Unholding {
  Unholding() {
    REQUIRE(space.reserve({60, 0}).ok());
    space.hold({60, 0});
    REQUIRE(space.reserve({240, 0}).ok());
    unholder = std::thread([this] {
      const Status status = space.unhold({60, 0});
      KEEL_CHECK(status.ok(), "unhold");
    });
    yield_until([this] { return space.contended(); });
  }
  LogSpace space{{1000, 250, 0, 1 << 20}, Lsn(0), Lsn(0), no_help()};
  std::thread unholder;
};

}  // namespace

TEST_CASE("who takes back what is held comes before all who wait for a grant") {
  Unholding unholding;
  LogSpace& space = unholding.space;
  std::atomic<bool> granted{false};
  std::thread waiter([&] {
    const Status status = space.reserve({5, 0});  // would fit at once
    KEEL_CHECK(status.ok(), "reserve");
    granted = true;
  });
  yield_until([&] { return space.longest().since_ns != 0 || granted; });
  let_others_run();
  CHECK_FALSE(granted);
  CHECK(space.sums().granted.log_bytes == 240);
  space.give_back({60, 0});
  unholding.unholder.join();
  waiter.join();
  CHECK(space.sums().granted.log_bytes == 245);
  CHECK(space.sums().held.log_bytes == 0);
}

TEST_CASE("what was held for a done has its room before others are served") {
  Unholding unholding;
  LogSpace& space = unholding.space;
  std::thread waiter([&] {
    const Status status = space.reserve({50, 0});
    KEEL_CHECK(status.ok(), "reserve");
  });
  yield_until([&] { return space.longest().since_ns != 0; });
  space.give_back({50, 0});  // Enough for either.
  unholding.unholder.join();
  CHECK(space.sums().granted.log_bytes == 250);
  space.give_back({50, 0});
  waiter.join();
  CHECK(space.sums().granted.log_bytes == 250);
}

TEST_CASE("who makes room serves who waits for it, though he does not run") {
  Gate drains;
  LogSpace space({1000, 100, 0, 1 << 20}, Lsn(0), Lsn(0),
                 {[&] { drains.pass(); }, [] {}, [] { return Sequence{}; }});
  REQUIRE(space.reserve({100, 0}).ok());
  Status reserved;
  std::thread waiter([&] { reserved = space.reserve({30, 0}); });
  drains.wait_for_arrival();
  CHECK_FALSE(space.try_reserve({1, 0}));
  space.give_back({100, 0});
  CHECK(space.sums().granted.log_bytes == 30);
  CHECK_FALSE(space.contended());
  CHECK(space.try_reserve({70, 0}));
  drains.open();
  waiter.join();
  CHECK(reserved.ok());
  CHECK(space.sums().granted.log_bytes == 100);
  CHECK(space.sums().grants == 1);
}

TEST_CASE("nobody is told that the log is full while another waits to take back what is held") {
  Gate unholder_asks;
  std::atomic<bool> passes{false};
  LogSpace* told = nullptr;
  LogSpace space({1000, 250, 0, 1 << 20}, Lsn(0), Lsn(0),
                 {[] {},
                  [&] {
                    if (!passes) {
                      unholder_asks.pass();
                      return;
                    }
                    told->pass_begins();
                    told->pass_ended(false);
                  },
                  [] { return Sequence{}; }});
  told = &space;
  REQUIRE(space.reserve({60, 0}).ok());
  space.hold({60, 0});
  REQUIRE(space.reserve({240, 0}).ok());
  Status unheld;
  std::thread unholder([&] { unheld = space.unhold({60, 0}); });
  unholder_asks.wait_for_arrival();
  passes = true;
  std::atomic<pid_t> waiter_id{0};
  std::atomic<bool> answered{false};
  Status reserved;
  std::thread waiter([&] {
    waiter_id = ::gettid();
    reserved = space.reserve({5, 0});
    answered = true;
  });
  const auto waits = [&] { return waiter_id != 0 && keel_test::is_asleep(waiter_id); };
  yield_until([&] { return space.sums().passes == 1 && waits(); });
  space.give_back({240, 0});  // wakes the waiter, while who goes first is not asleep
  yield_until([&] { return answered || waits(); });
  let_others_run();
  CHECK_FALSE(answered);
  unholder_asks.open();
  unholder.join();
  waiter.join();
  CHECK(unheld.ok());
  CHECK(reserved.ok());
  CHECK(space.sums().granted.log_bytes == 65);
}

TEST_CASE("who asks for space after several failures is told the first") {
  LogSpace space({1000, 250, 0, 1 << 20}, Lsn(0), Lsn(0), no_help());
  space.fail({Errc::kIo, EIO, "first", 1});
  space.fail({Errc::kShutdown, 0, "second", 2});
  const Status status = space.reserve({10, 0});
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().code == Errc::kIo);
  CHECK(status.error().value == 1);
}

TEST_CASE("a waiter is not told that the log is full before a pass has looked at what it lacks") {
  std::atomic<int> asked{0};
  // Nine tenths of the memory are held for dones, so the first lacks memory alone; the second lacks
  // log space.
  LogSpace space({1000, 250, 0, 100}, Lsn(0), Lsn(800),
                 {[] {}, [&] { ++asked; }, [] { return Sequence{}; }});
  space.adopt_held({0, 90});
  Status first_status;
  std::thread first([&] { first_status = space.reserve({10, 20}); });
  yield_until([&] { return asked == 1; });
  std::atomic<pid_t> second_id{0};
  Status second_status;
  std::thread second([&] {
    second_id = ::gettid();
    second_status = space.reserve({250, 5});
  });
  yield_until([&] { return second_id != 0 && keel_test::is_asleep(second_id); });
  CHECK_FALSE(space.tail_wanted());
  space.pass_begins();
  space.pass_ended(false);
  first.join();
  REQUIRE_FALSE(first_status.ok());
  CHECK(first_status.error().code == Errc::kLogFull);
  yield_until([&] { return asked == 2 || !space.contended(); });
  CHECK(asked == 2);
  if (asked == 2) {
    CHECK(space.tail_wanted());
    space.pass_begins();
    space.tail_moved(Lsn(800));
    space.pass_ended(false);
  }
  second.join();
  CHECK(second_status.ok());
}
