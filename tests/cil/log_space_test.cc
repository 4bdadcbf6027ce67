#include "log_space.h"
#include "support/gate.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include "keel/base/check.h"
#include "log/format.h"
#include "support/kernel_threads.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kMemory = 1 << 20;

// An upkeep in miniature: whoever asks for help makes a pass, on its own thread.
struct Helper {
  LogSpace* space = nullptr;
  std::atomic<int> asked{0};
  std::atomic<std::uint64_t> context{0};  // what is granted to it
  std::function<void()> during_pass;

  LogSpace::Helpers hooks() {
    return {[] {},
            [this] {
              ++asked;
              space->pass_begins();
              if (during_pass) {
                during_pass();
              }
              space->pass_ended(false);
            },
            [this] { return context != 0 ? Sequence(1) : Sequence{}; }};
  }
  // As a commit does it.
  void commit(std::uint64_t reserved, std::uint64_t used) {
    context += used;
    space->give_back({reserved - used, 0});
  }
};

LogSpace::Helpers no_help() {
  return {[] {}, [] {}, [] { return Sequence{}; }};
}

Status reserve(LogSpace& space, std::uint64_t log_bytes, std::uint64_t memory_bytes = 0) {
  return space.reserve({log_bytes, memory_bytes});
}

Bytes granted(const LogSpace& space) { return Bytes(space.sums().granted.log_bytes); }

void wait_for_waiter(const LogSpace& space) {
  while (!space.contended()) {
    std::this_thread::yield();
  }
}

}  // namespace

TEST_CASE("space is granted while log and checkpoint have it, and comes back") {
  LogSpace space({1000, 250, 0, kMemory}, Lsn(0), Lsn(0), no_help());
  CHECK(reserve(space, 100).ok());
  CHECK(reserve(space, 150).ok());
  CHECK(granted(space) == Bytes(250));
  space.give_back({150, 0});
  CHECK(reserve(space, 150).ok());
  space.give_back({160, 0});
  CHECK(granted(space) == Bytes(90));
  CHECK(space.close_context(90, 80) == Lsn(0));
  CHECK(granted(space) == Bytes(0));
  CHECK(space.sums().used == Bytes(80));
  CHECK(space.sums().in_flight == 1);
  space.checkpoint_done();
  space.tail_moved(Lsn(80));
  CHECK(space.sums().used == Bytes(0));
  const Status large = reserve(space, 251);
  REQUIRE_FALSE(large.ok());
  CHECK(large.error().code == Errc::kTooLarge);
  const Status much = reserve(space, 1, kMemory / 4 + 1);
  REQUIRE_FALSE(much.ok());
  CHECK(much.error().code == Errc::kTooLarge);
}

TEST_CASE("memory is a bound of its own, in the same queue") {
  Helper helper;
  LogSpace space({1000, 250, 0, 100}, Lsn(0), Lsn(0), helper.hooks());
  helper.space = &space;
  for (int i = 0; i < 4; ++i) {
    REQUIRE(reserve(space, 10, 25).ok());
  }
  CHECK_FALSE(space.try_reserve({10, 1}));
  CHECK_FALSE(space.memory_wanted());
  std::thread waiter([&] { CHECK(reserve(space, 10, 20).ok()); });
  wait_for_waiter(space);
  CHECK(space.memory_wanted());
  CHECK_FALSE(space.try_reserve({10, 0}));  // none overtakes
  space.free_memory(19);
  CHECK(space.contended());
  space.free_memory(1);
  waiter.join();
  CHECK(space.sums().granted.memory_bytes == 100);
}

TEST_CASE("a log that nothing can free is full, and says which LSN holds it") {
  Helper helper;
  LogSpace space({1000, 250, 0, kMemory}, Lsn(4000), Lsn(4900), helper.hooks());
  helper.space = &space;
  const Status full = reserve(space, 101);
  REQUIRE_FALSE(full.ok());
  CHECK(full.error().code == Errc::kLogFull);
  CHECK(full.error().value == 4000);
  CHECK(helper.asked >= 1);
  CHECK_FALSE(space.contended());
  CHECK(reserve(space, 100).ok());
  // A pass that moves the tail makes room.
  helper.during_pass = [&] { space.tail_moved(Lsn(4500)); };
  CHECK(reserve(space, 150).ok());
  CHECK(granted(space) == Bytes(250));
}

TEST_CASE("a log is not called full while a pass is under way") {
  std::atomic<int> asked{0};
  std::atomic<int> looks{0};  // of the waiter that has found neither room nor an end
  LogSpace space({1000, 250, 0, kMemory}, Lsn(0), Lsn(900),
                 {[] {}, [&] { ++asked; },
                  [&] {
                    ++looks;
                    return Sequence{};
                  }});
  Status status;
  std::thread waiter([&] { status = reserve(space, 200); });
  while (asked == 0) {
    std::this_thread::yield();
  }
  space.pass_begins();
  const int before = looks;
  space.tail_moved(Lsn(50));  // not enough, and there is more to come
  while (looks == before && space.contended()) {
    std::this_thread::yield();
  }
  CHECK(space.contended());
  space.tail_moved(Lsn(500));
  space.pass_ended(false);
  waiter.join();
  CHECK(status.ok());
}

TEST_CASE("a log is not full while something outside may still free space") {
  std::atomic<int> asked{0};
  std::atomic<int> looks{0};  // of the waiter that has found neither room nor an end
  LogSpace space({1000, 250, 0, kMemory}, Lsn(0), Lsn(900),
                 {[] {}, [&] { ++asked; },
                  [&] {
                    ++looks;
                    return Sequence{};
                  }});
  Status status;
  std::thread waiter([&] { status = reserve(space, 200); });
  while (asked == 0) {
    std::this_thread::yield();
  }
  for (int i = 0; i < 100; ++i) {
    const int before = looks;
    space.pass_begins();
    space.pass_ended(true);
    while (looks == before && space.contended()) {
      std::this_thread::yield();
    }
    CHECK(space.contended());
  }
  space.pass_begins();
  space.pass_ended(false);
  waiter.join();
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().code == Errc::kLogFull);
}

TEST_CASE("what is set aside is only for logging again, what is held is for nobody") {
  LogSpace space({1000, 250, 100, kMemory}, Lsn(0), Lsn(700), no_help());
  CHECK_FALSE(space.try_reserve({201, 0}));
  REQUIRE(space.try_reserve({200, 0}));
  CHECK_FALSE(space.try_reserve({1, 0}));
  CHECK(space.try_reserve_again({50, 0}));
  CHECK_FALSE(space.try_reserve_again({1, 0}));  // max_checkpoint
  space.give_back({150, 0});
  space.hold({60, 0});
  CHECK(granted(space) == Bytes(40));
  CHECK(space.sums().held.log_bytes == 60);
  REQUIRE_FALSE(space.try_reserve({101, 0}));
  CHECK(space.try_reserve({100, 0}));
  CHECK(space.try_reserve_again({100, 0}));
  space.give_back({50, 0});
  CHECK(space.unhold({60, 0}).ok());
  CHECK(space.sums().held.log_bytes == 0);
}

TEST_CASE("what is held comes back when the checkpoint has room for it, before any other grant") {
  Helper helper;
  LogSpace space({1000, 250, 0, kMemory}, Lsn(0), Lsn(0), helper.hooks());
  helper.space = &space;
  REQUIRE(reserve(space, 60).ok());
  space.hold({60, 0});
  REQUIRE(reserve(space, 240).ok());
  std::atomic<bool> back{false};
  std::thread unholder([&] {
    const Status status = space.unhold({60, 0});
    KEEL_CHECK(status.ok(), "unhold");
    back = true;
  });
  wait_for_waiter(space);
  CHECK_FALSE(space.try_reserve({1, 0}));
  space.give_back({40, 0});  // not enough
  CHECK_FALSE(back);
  CHECK_FALSE(space.try_reserve({1, 0}));
  space.give_back({10, 0});
  unholder.join();
  CHECK(space.sums().held.log_bytes == 0);
  CHECK(granted(space) == Bytes(250));
  CHECK_FALSE(space.contended());
  // And who waits when the journal fails is told.
  space.give_back({60, 0});
  space.hold({60, 0});
  REQUIRE(reserve(space, 120).ok());
  std::thread failing([&] {
    const Status status = space.unhold({60, 0});
    KEEL_CHECK(!status && status.error().code == Errc::kIo, "unhold");
  });
  wait_for_waiter(space);
  space.fail({Errc::kIo, EIO, "write", 0});
  failing.join();
}

TEST_CASE("a waiter waits for open reservations and for the context before it calls the log full") {
  Helper helper;
  LogSpace space({1000, 250, 0, kMemory}, Lsn(0), Lsn(0), helper.hooks());
  helper.space = &space;
  helper.during_pass = [&] {
    if (const std::uint64_t context = helper.context.exchange(0); context != 0) {
      (void)space.close_context(context, context);
      space.checkpoint_done();
    }
  };
  REQUIRE(reserve(space, 200).ok());
  std::atomic<bool> granted_it{false};
  std::thread waiter([&] {
    CHECK(reserve(space, 100).ok());
    granted_it = true;
  });
  wait_for_waiter(space);
  CHECK_FALSE(granted_it);
  // The reservation becomes part of the context: still no room, so the waiter asks for a push.
  helper.commit(200, 180);
  waiter.join();
  CHECK(granted_it);
}

TEST_CASE("waiters are served in the order in which they came, none overtakes") {
  LogSpace space({1000, 100, 0, kMemory}, Lsn(0), Lsn(0), no_help());
  REQUIRE(reserve(space, 60).ok());
  std::thread large([&] { CHECK(reserve(space, 60).ok()); });
  wait_for_waiter(space);
  std::atomic<pid_t> small_id{0};
  std::thread small([&] {
    small_id = ::gettid();
    CHECK(reserve(space, 30).ok());  // would fit at once
  });
  while (granted(space) == Bytes(60) && !keel_test::is_asleep(small_id)) {
    std::this_thread::yield();
  }
  CHECK(granted(space) == Bytes(60));
  space.give_back({60, 0});
  large.join();
  small.join();
  CHECK(granted(space) == Bytes(90));
}

TEST_CASE("a failure reaches every waiter and every later call") {
  LogSpace space({1000, 100, 0, kMemory}, Lsn(0), Lsn(0), no_help());
  REQUIRE(reserve(space, 100).ok());
  std::vector<std::thread> threads;
  std::array<std::atomic<pid_t>, 5> ids{};
  std::atomic<int> failed{0};
  for (std::atomic<pid_t>& id : ids) {
    threads.emplace_back([&] {
      id = ::gettid();
      const Status status = reserve(space, 50);
      failed += !status.ok() && status.error().code == Errc::kIo ? 1 : 0;
    });
  }
  // All of them: the failure must get from each to the next. On its way one may sleep for a moment.
  wait_for_waiter(space);
  for (int looks = 0; looks < 10; std::this_thread::yield()) {
    const bool all = std::all_of(ids.begin(), ids.end(), [](const std::atomic<pid_t>& id) {
      return id != 0 && keel_test::is_asleep(id);
    });
    looks = all ? looks + 1 : 0;
  }
  space.fail({Errc::kIo, EIO, "test", 7});
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(failed == 5);
  const Status late = reserve(space, 1);
  REQUIRE_FALSE(late.ok());
  CHECK(late.error().value == 7);
  space.give_back({100, 0});
}

TEST_CASE("threads that reserve, commit and push never exceed the log, and all get through") {
  std::atomic<int> asked{0};
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> context{0};
  std::atomic<std::uint64_t> sequence{1};
  LogSpace space(
      {10000, 2500, 0, kMemory}, Lsn(0), Lsn(0),
      {[] {}, [&] { ++asked; }, [&] { return context != 0 ? Sequence(sequence) : Sequence{}; }});
  std::thread pusher([&] {
    // Every pass pushes the context and frees it all.
    Lsn head(0);
    while (!done) {
      if (asked.exchange(0) == 0) {
        std::this_thread::yield();
        continue;
      }
      space.pass_begins();
      if (const std::uint64_t bytes = context.exchange(0); bytes != 0) {
        ++sequence;
        head = space.close_context(bytes, bytes) + Bytes(bytes);
        space.checkpoint_done();
      }
      space.tail_moved(head);
      space.pass_ended(false);
    }
  });
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 2000; ++i) {
        const std::uint64_t bytes = 100 + (i * 37 + t * 11) % 1900;
        CHECK(reserve(space, bytes).ok());
        const std::uint64_t used = i % 3 == 0 ? 0 : bytes / 2;
        context += used;
        space.give_back({bytes - used, 0});
        (void)space.sums();  // checks the bounds
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  done = true;
  pusher.join();
  CHECK(granted(space) == Bytes(context));
}

TEST_CASE("a log is not called full while a pass that was asked for is still to come") {
  std::atomic<int> asked{0};
  LogSpace space({1000, 250, 0, kMemory}, Lsn(0), Lsn(900),
                 {[] {}, [&] { ++asked; }, [] { return Sequence{}; }});
  REQUIRE(reserve(space, 50).ok());
  Status status;
  std::thread waiter([&] { status = reserve(space, 200); });
  while (asked == 0) {
    std::this_thread::yield();
  }
  space.pass_begins();  // the one that the waiter asked for: nothing to be had
  space.pass_ended(false);
  // A client releases the items at the tail, which asks for a pass; before it comes, another
  // transaction is cancelled.
  space.pass_asked();
  space.give_back({50, 0});
  let_others_run();
  CHECK(space.contended());
  space.pass_begins();
  space.tail_moved(Lsn(500));
  space.pass_ended(false);
  waiter.join();
  CHECK(status.ok());
}

TEST_CASE("what the neediest checkpoint takes is set aside until the tail has passed it") {
  LogSpace space({1000, 250, 50, kMemory}, Lsn(0), Lsn(0), no_help());
  const auto close = [&space](std::uint64_t bytes, std::uint64_t need, bool joined = false) {
    REQUIRE(space.try_reserve({bytes, 0}));
    const Lsn start = space.close_context(bytes, bytes);
    space.checkpoint_done();
    space.needs_again(start, need, joined);
    return start;
  };
  const auto aside = [&space] { return space.sums().set_aside_bytes; };
  CHECK(aside() == 50);
  (void)close(100, 40);
  CHECK(aside() == 50);
  const Lsn large = close(200, 220);
  CHECK(aside() == 220);
  const Lsn last = close(100, 90);
  CHECK(aside() == 220);
  CHECK(space.sums().used == Bytes(400));
  REQUIRE(space.try_reserve({100, 0}));
  (void)space.close_context(100, 100);
  space.checkpoint_done();
  REQUIRE(space.try_reserve({200, 0}));
  (void)space.close_context(200, 200);
  space.checkpoint_done();
  CHECK_FALSE(space.try_reserve({81, 0}));
  REQUIRE(space.try_reserve({80, 0}));
  space.give_back({80, 0});
  space.tail_moved(large);
  CHECK(aside() == 220);
  space.tail_moved(last);
  CHECK(aside() == 90);
  space.tail_moved(last + Bytes(100));
  CHECK(aside() == 50);
  // Whose items hold the tail together are needed together.
  (void)close(100, 60);
  (void)close(100, 30, true);
  CHECK(aside() == 90);
  // And so may be what is gathered now.
  REQUIRE(space.try_reserve({40, 0}));
  CHECK(aside() == 130);
  space.give_back({40, 0});
  (void)close(100, 70);
  CHECK(aside() == 90);
}

TEST_CASE("logging again takes what there is, but no part of it while others may make room") {
  LogSpace space({1000, 250, 100, kMemory}, Lsn(0), Lsn(800), no_help());
  space.needs_again(Lsn(700), 180, false);
  LogSpace::AgainGrant grant = space.grant_again(10);
  CHECK(grant.log_bytes == 180);
  CHECK(grant.is_last_word);
  // Others leave too little for all of it, and there is no room for the unit of a second part.
  space.give_back({130, 0});
  grant = space.grant_again(10);
  CHECK(grant.log_bytes == 0);
  CHECK_FALSE(grant.is_last_word);
  // With room for that it is done in parts.
  LogSpace roomy({2000, 250, 100, kMemory}, Lsn(0), Lsn(800), no_help());
  roomy.needs_again(Lsn(700), 180, false);
  REQUIRE(roomy.try_reserve({150, 0}));
  grant = roomy.grant_again(10);
  CHECK(grant.log_bytes == 100);
  CHECK_FALSE(grant.is_last_word);
  CHECK(roomy.sums().granted.log_bytes == 250);
  // What does not fit in one checkpoint is done in parts too: there is room for them all.
  LogSpace large({2000, 250, 100, kMemory}, Lsn(0), Lsn(800), no_help());
  large.needs_again(Lsn(500), 200, false);
  large.needs_again(Lsn(700), 300, true);
  grant = large.grant_again(10);
  CHECK(grant.log_bytes == 250);
  CHECK(grant.room_bytes == 1200);
  // A fuller log gives what is left, and nothing if that is a unit at most.
  LogSpace full({1000, 250, 100, kMemory}, Lsn(0), Lsn(960), no_help());
  grant = full.grant_again(10);
  CHECK(grant.log_bytes == 40);
  full.give_back({40, 0});
  grant = full.grant_again(40);
  CHECK(grant.log_bytes == 0);
  CHECK(grant.is_last_word);
}
