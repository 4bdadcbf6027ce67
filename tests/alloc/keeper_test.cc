// The keeper's thread: begins, rests, is woken, ends; and pools that get none.
#include "keeper.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "pool_support.h"
#include "support/as_user.h"
#include "support/death.h"
#include "support/sim_scheduled_disk.h"

using namespace keel;
using namespace keel_test;

namespace {

class Rounds final : public Upkeep {
 public:
  Upkeep::Rounds upkeep() override {
    inside = true;
    ++count;
    while (hold) {
      std::this_thread::yield();
    }
    inside = false;
    return Upkeep::Rounds::kNone;
  }
  std::atomic<unsigned> count{0};
  std::atomic<bool> hold{false};
  std::atomic<bool> inside{false};
};

// In a child: no more threads for this process, as a user without privileges.
[[maybe_unused]] void forbid_threads() {
  const struct rlimit none { 0, 0 };
  (void)::setrlimit(RLIMIT_NPROC, &none);
  if (!become(plain_user())) {
    ::_exit(kCannotBecome);
  }
}

}  // namespace

TEST_CASE("a keeper that rests makes a round when it is told of activity or of little memory") {
  Rounds rounds;
  Keeper keeper(rounds);
  REQUIRE(keeper.start());
  for (const bool low : {false, true, false}) {
    const unsigned before = rounds.count;
    while (rounds.count == before) {
      low ? keeper.note_low() : keeper.note_activity();
      std::this_thread::yield();
    }
  }
  keeper.stop();
  const unsigned at_the_end = rounds.count;
  keeper.note_low();
  keeper.stop();
  CHECK(rounds.count == at_the_end);
}

TEST_CASE("a paused keeper is in no round and begins none, and goes on afterwards") {
  Rounds rounds;
  Keeper keeper(rounds);
  REQUIRE(keeper.start());
  for (int i = 0; i < 200; ++i) {
    const Keeper::Paused paused(keeper);
    const unsigned before = rounds.count;
    CHECK(!rounds.inside);
    keeper.note_low();
    std::this_thread::yield();
    CHECK(rounds.count == before);
  }
  const unsigned before = rounds.count;
  while (rounds.count == before) {
    keeper.note_activity();
    std::this_thread::yield();
  }
}

#if defined(KEEL_DEBUG)
TEST_CASE("a round that was asked for during a pause is made when that ends") {
  SimSchedule schedule = sim_schedule(1);
  schedule.spurious_one_in = 0;  // Nobody wakes for no reason.
  schedule.try_one_in = 0;
  SimScheduler scheduler(schedule);
  SimScheduledDisk disk(scheduler, {.seed = 1, .virtual_clock = true}, {});
  const ScopedOs scope(disk);
  constexpr std::uint64_t kSecondNs = 1'000'000'000;
  Rounds rounds;
  Keeper keeper(rounds);
  REQUIRE(keeper.start());
  os().sleep_ns(kSecondNs);  // It is at rest.
  const unsigned before = rounds.count;
  {
    const Keeper::Paused paused(keeper);
    keeper.note_low();
    os().sleep_ns(kSecondNs);  // It wakes, sees that it may not, and sleeps again.
    CHECK(rounds.count == before);
  }
  os().sleep_ns(kSecondNs);
  CHECK(rounds.count == before + 1);
}
#endif

TEST_CASE("pausing a keeper waits for the round that it is in") {
  Rounds rounds;
  Keeper keeper(rounds);
  rounds.hold = true;
  REQUIRE(keeper.start());
  while (!rounds.inside) {
    keeper.note_low();
    std::this_thread::yield();
  }
  std::thread releases([&] {
    // Should it come before the pause, the test sees less than it could, and nothing that is not
    // there.
    for (int i = 0; i < 1'000; ++i) {
      std::this_thread::yield();
    }
    rounds.hold = false;
  });
  {
    const Keeper::Paused paused(keeper);
    CHECK(!rounds.inside);
  }
  releases.join();
}

TEST_CASE("stopping a keeper waits for its round, and one that never began is stopped too") {
  Rounds rounds;
  {
    Keeper keeper(rounds);
    rounds.hold = true;
    REQUIRE(keeper.start());
    while (!rounds.inside) {
      keeper.note_low();
      std::this_thread::yield();
    }
    std::thread releases([&] { rounds.hold = false; });
    keeper.stop();
    CHECK(!rounds.inside);
    releases.join();
  }
  Keeper never(rounds);
  never.note_low();
  never.stop();
}

TEST_CASE("a pool's thread populates ahead by itself, and ends with the pool") {
  auto made = Pool::create({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  REQUIRE(made.ok());
  Pool& pool = **made;
  std::vector<void*> buffers;
  while (pool.stats().keeper_growths == 0) {
    buffers.push_back(pool.kvmalloc(kPage));
    std::this_thread::yield();
    if (buffers.size() > 1'000) {
      free_all(pool, buffers);
      (void)pool.trim();  // Else what this thread has grown it by is all it asks for.
    }
  }
  pool.audit();
  free_all(pool, buffers);
}

TEST_CASE("pools with a thread come and go, used or not") {
  for (int i = 0; i < 50; ++i) {
    auto made = Pool::create({.capacity_bytes = 4 * kMiB, .window_bytes = 16 * kMiB});
    REQUIRE(made.ok());
    if (i % 2 == 0) {
      (*made)->kvfree((*made)->kvmalloc(100'000));
    }
    if (i % 5 == 0) {
      (*made)->audit();
    }
  }
}

TEST_CASE("a pool that gets no thread works all the same") {
#if defined(__SANITIZE_THREAD__)
  skip_case("ThreadSanitizer has a thread of its own in each process");
#else
  const auto ending = run_in_child([] {
    forbid_threads();
    Rounds rounds;
    Keeper keeper(rounds);
    if (keeper.start()) {
      ::_exit(3);
    }
    auto made = Pool::create({.capacity_bytes = 4 * kMiB, .window_bytes = 16 * kMiB});
    if (!made) {
      ::_exit(4);
    }
    void* buffer = (*made)->kvmalloc(kMiB);
    if (buffer == nullptr) {
      ::_exit(5);
    }
    (*made)->kvfree(buffer);
    (*made)->upkeep();
    (*made)->audit();
  });
  if (could_not_become(ending)) {
    return;
  }
  CAPTURE(ending.errors);
  CHECK(ending.exit_code == 0);
#endif
}
