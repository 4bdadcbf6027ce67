// Which checkpoints are in flight beside each other, and on whose thread they are completed.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/base/scopes.h"
#include "keel/base/thread_scheduler.h"
#include "probe.h"
#include "support/gate.h"
#include "support/kernel_threads.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("small commits gather while a small checkpoint is written") {
  LogWorld world;
  Trace trace;
  Probe first(trace, 1), second(trace, 2), third(trace, 3);
  first.regions = second.regions = third.regions = {"x"};
  auto journal = world.open({.depth = 4});
  Gate gate;
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && !gate.arrived()) {
      gate.pass();
    }
  });
  const Sequence one = commit(*journal, {&first});
  std::thread force_one([&] { CHECK(journal->force(one).ok()); });
  gate.wait_for_arrival();
  const Sequence two = commit(*journal, {&second});
  std::thread force_two([&] { CHECK(journal->force(two).ok()); });
  let_others_run();
  CHECK(commit(*journal, {&third}) == two);
  CHECK(journal->stats().in_flight == 1);
  gate.open();
  force_one.join();
  force_two.join();
  CHECK(journal->stats().checkpoints == 2);
  world.disk.on_io(nullptr);
  finish(journal);
}

TEST_CASE("what is in flight reaches no further than the state slots can follow") {
  constexpr std::size_t kLarge = 1'500'000;
  // Half of the log has room for three of them and for one as large as can be.
  constexpr std::uint32_t kAtOnce = 3;
  LogWorld world({.size = Bytes(16U << 20)});
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  std::vector<std::thread> forcers;
  auto journal = world.open({.depth = 8});
  Gate gate;
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kFlush) {
      gate.pass();
    }
  });
  for (std::uint32_t i = 0; i < kAtOnce + 2; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {random_bytes(i + 1, kLarge)};
    const Sequence sequence = commit(*journal, {items.back().get()}, kLarge);
    forcers.emplace_back([&, sequence] { CHECK(journal->force(sequence).ok()); });
    if (i < kAtOnce) {
      yield_until([&] { return journal->stats().current > sequence; });
    }
  }
  for (int i = 0; i < 5; ++i) {
    let_others_run();
  }
  CHECK(journal->stats().in_flight == kAtOnce);
  gate.open();
  for (std::thread& thread : forcers) {
    thread.join();
  }
  world.disk.on_io(nullptr);
  journal->audit();
  finish(journal);
}

TEST_CASE("a force by a thread with a transaction open leaves the items' callbacks to a worker") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  std::thread::id by;
  item.during_committed = [&] { by = std::this_thread::get_id(); };
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  auto transaction = journal->begin(100, 1);
  REQUIRE(transaction.ok());
  REQUIRE(journal->force(sequence).ok());
  CHECK((by != std::thread::id{}));
  CHECK((by != std::this_thread::get_id()));
  CHECK(transaction->commit().ok());
  finish(journal);
}

TEST_CASE("a turn that comes as another's write fails begins no checkpoint") {
  constexpr std::size_t kLarge = 1'500'000;
  // At the first request for memory: that of the second turn, before it takes the context.
  class Disk final : public SimDisk {
   public:
    void* metadata_allocate(std::size_t bytes) override {
      if (waits.exchange(false)) {
        gate.open();
        yield_until([this] { return failed.load(); });
        ++waited;
      }
      return SimDisk::metadata_allocate(bytes);
    }
    Gate gate;
    std::atomic<bool> waits{false};
    std::atomic<bool> failed{false};
    std::atomic<int> waited{0};
  };
  for (const std::size_t bytes : {std::size_t{100}, kLarge}) {
    CAPTURE(bytes);
    Disk disk;
    const ScopedOs scope(disk);
    REQUIRE(create_log(kLogPath, {.size = Bytes(16U << 20)}).ok());
    Trace trace;
    Probe first(trace, 1), second(trace, 2);
    first.regions = {std::string(kLarge, 'x')};
    second.regions = {std::string(bytes, 'x')};
    auto opened = Journal::open(
        kLogPath, {.depth = 4, .cover_after_ns = UINT64_MAX, .stall_after_ns = UINT64_MAX},
        kIgnore);
    REQUIRE(opened.ok());
    Journal& journal = **opened;
    const Sequence one = commit(journal, {&first}, kLarge);
    disk.inject({.op = SimOp::kWrite, .nth = 1, .error = EIO, .for_good = true});
    disk.on_io([&](const SimIo& io) {
      if (io.op == SimOp::kWrite && !disk.gate.arrived()) {
        disk.gate.pass();
      }
    });
    std::thread force_one([&] {
      CHECK(journal.force(one).error().code == Errc::kIo);
      disk.failed = true;
    });
    disk.gate.wait_for_arrival();
    const Sequence two = commit(journal, {&second}, bytes);
    CHECK(two.value() == one.value() + 1);
    disk.waits = true;
    CHECK(journal.force(two).error().code == Errc::kIo);
    force_one.join();
    CHECK(disk.waited == 1);
    CHECK(journal.stats().checkpoints == 0);
    CHECK(journal.close().error().code == Errc::kIo);
    CHECK(trace.count(Call::kAbort) == 2);
    disk.on_io(nullptr);
  }
}

TEST_CASE("a force that finds its checkpoint written leaves the next one alone") {
  LogWorld world;
  Trace trace;
  Probe first(trace, 1), second(trace, 2);
  Gate gate;
  first.during_committed = [&] { gate.pass(); };
  first.regions = second.regions = {"x"};
  auto journal = world.open({.depth = 2});
  const Sequence one = commit(*journal, {&first});
  std::thread writer([&] { CHECK(journal->force(one).ok()); });
  gate.wait_for_arrival();
  const Sequence two = commit(*journal, {&second});
  std::atomic<pid_t> late_id{0};
  std::thread late([&] {
    late_id = ::gettid();
    CHECK(journal->force(one).ok());
  });
  yield_until([&] { return journal->stats().forces == 2; });
  // Until it waits, look after look: in the way there it may sleep for a moment.
  for (int looks = 0; looks < 10; std::this_thread::yield()) {
    looks = is_asleep(late_id) ? looks + 1 : 0;
  }
  CHECK(journal->stats().current == two);
  CHECK(journal->stats().checkpoints == 0);
  gate.open();
  writer.join();
  late.join();
  CHECK(journal->force(two).ok());
  finish(journal);
}

TEST_CASE("a force whose checkpoint is stable leaves the completion of others' to a worker") {
  constexpr std::uint32_t kMost = 20;
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  std::atomic<std::uint32_t> wanted{0};
  std::atomic<std::uint32_t> completed_here{0};
  auto journal = world.open({.depth = 2});
  const auto forcer_id = std::this_thread::get_id();
  for (std::uint32_t i = 0; i <= kMost; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {"x"};
    if (i < kMost) {
      // Has another checkpoint written, and waits for that.
      items.back()->during_committed = [&] {
        if (std::this_thread::get_id() != forcer_id) {
          return;
        }
        ++completed_here;
        const std::uint64_t writes = journal->stats().writes;
        ++wanted;
        yield_until([&] { return journal->stats().writes > writes; });
        let_others_run();  // the worker that has written it has nothing to do by then
      };
    }
  }
  std::atomic<bool> over{false};
  std::thread helper([&] {
    for (std::uint32_t i = 1; i <= kMost; ++i) {
      yield_until([&] { return wanted >= i || over; });
      if (over) {
        return;
      }
      const Sequence sequence = commit(*journal, {items[i].get()});
      (void)journal->force(sequence, 1);  // a worker writes it
    }
  });
  REQUIRE(journal->force(commit(*journal, {items[0].get()})).ok());
  CHECK(completed_here < kMost);
  over = true;
  helper.join();
  finish(journal);
}

#if defined(KEEL_DEBUG)

namespace {

std::atomic<bool> g_waits{false};
std::atomic<bool> g_armed{false};
Gate* g_gate = nullptr;
thread_local bool t_waiter = false;

// Stops the waiter at the first lock that it takes after it was called upon.
void stop_called_upon(ThreadPoint what) {
  if (!t_waiter) {
    return;
  }
  if (what == ThreadPoint::kWaitWord) {
    g_waits = true;
  } else if (what == ThreadPoint::kLock && g_armed.exchange(false)) {
    g_gate->pass();
  }
}

}  // namespace

// A waiter that does not push itself is called upon for a large context, which is small, and may
// not begin, by the time that a worker looks.
TEST_CASE("who is called upon and leaves it to a worker is called upon again") {
  LogWorld world({.size = Bytes(16U << 20)});
  Trace trace;
  Probe large(trace, 1), small(trace, 2), shrinks(trace, 3);
  large.regions = {std::string(600'000, 'b')};
  small.regions = {"a"};
  shrinks.regions = {std::string(600'000, 'c')};
  auto journal = world.open({.depth = 2});
  Gate first, second, called;
  std::atomic<int> writes{0};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite) {
      const int n = writes++;
      if (n < 2) {
        (n == 0 ? first : second).pass();
      }
    }
  });
  const Sequence one = commit(*journal, {&large}, 700'000);
  std::thread force_large([&] { CHECK(journal->force(one).ok()); });
  first.wait_for_arrival();
  const Sequence two = commit(*journal, {&small});
  std::thread force_small([&] { CHECK(journal->force(two).ok()); });
  second.wait_for_arrival();
  const Sequence three = commit(*journal, {&shrinks}, 700'000);
  g_gate = &called;
  g_waits = g_armed = false;
  const auto before = set_thread_point_hook(stop_called_upon);
  Status forced;
  std::thread waiter([&] {
    t_waiter = true;
    forced = journal->force(three, UINT64_MAX / 4);
  });
  yield_until([] { return g_waits.load(); });
  for (int i = 0; i < 5; ++i) {
    let_others_run();  // a worker that was asked looks, and sleeps
  }
  g_armed = true;
  first.open();  // The large one is complete: a flight is free, and the waiter is called upon.
  called.wait_for_arrival();
  force_large.join();
  shrinks.regions = {"c"};
  // (Another context if a worker was late, and looked just now.)
  CHECK(commit(*journal, {&shrinks}, 1000) >= three);
  called.open();
  for (int i = 0; i < 5; ++i) {
    let_others_run();
  }
  second.open();  // The small one is complete too: nothing is in flight any more.
  force_small.join();
  waiter.join();
  set_thread_point_hook(before);
  CHECK(forced.ok());
  world.disk.on_io(nullptr);
  finish(journal);
}

#endif

TEST_CASE("what completes a checkpoint reclaims nothing: a shrinker would wait for it") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  int called = 0;
  item.during_committed = [&] {
    ++called;
    CHECK(NoReclaimScope::active());
  };
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  CHECK(called == 1);
  CHECK_FALSE(NoReclaimScope::active());
  finish(journal);
}
