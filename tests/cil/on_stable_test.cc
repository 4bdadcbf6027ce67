// Journal::on_stable(): once, in order, with the right answer, and what a callback may do.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "probe.h"
#include "stable_callbacks.h"
#include "support/kernel_threads.h"
#include "support/skip_case.h"
#include "thread_refusal.h"

using namespace keel;
using namespace keel_test;

namespace {

// What was called, in order; wait(n) until there are n.
class Calls {
 public:
  std::function<void(const Status&)> note(std::uint64_t id) {
    return [this, id](const Status& status) {
      const std::lock_guard<std::mutex> lock(mutex_);
      ids_.push_back(id);
      codes_.push_back(status.ok() ? -1 : static_cast<int>(status.error().code));
      changed_.notify_all();
    };
  }
  std::vector<std::uint64_t> wait(std::size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return ids_.size() >= count; });
    return ids_;
  }
  std::vector<int> codes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return codes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::uint64_t> ids_;
  std::vector<int> codes_;
};

}  // namespace

TEST_CASE("a callback asks for the push of its sequence, and finds it stable") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"a"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  std::atomic<bool> stable{false};
  Calls calls;
  REQUIRE(journal
              ->on_stable(sequence,
                          [&](const Status& status) {
                            stable = journal->stable_sequence() >= sequence;
                            calls.note(1)(status);
                          })
              .ok());
  CHECK(calls.wait(1) == std::vector<std::uint64_t>{1});
  CHECK(stable);
  // Stable already, and the empty current one: at once.
  REQUIRE(journal->on_stable(sequence, calls.note(2)).ok());
  REQUIRE(journal->on_stable(journal->stats().current, calls.note(3)).ok());
  CHECK(calls.wait(3) == std::vector<std::uint64_t>{1, 2, 3});
  CHECK(calls.codes() == std::vector<int>{-1, -1, -1});
  const Status future = journal->on_stable(next(journal->stats().current), calls.note(4));
  REQUIRE_FALSE(future.ok());
  CHECK(future.error().code == Errc::kFutureSequence);
  finish(journal);
  CHECK(calls.wait(0).size() == 3);
}

TEST_CASE("callbacks come in the order of sequences, whatever the order they were asked in") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  auto journal = world.open();
  // The first write hangs until all have asked.
  std::mutex gate;
  std::atomic<bool> armed{true};
  std::unique_lock<std::mutex> closed(gate);
  world.disk.on_io([&](const SimIo& io) {
    if ((io.op == SimOp::kWrite || io.op == SimOp::kFlush) && armed) {
      const std::lock_guard<std::mutex> wait(gate);
    }
  });
  Calls calls;
  item.regions = {"first"};
  const Sequence first = commit(*journal, {&item});
  REQUIRE(journal->on_stable(first, calls.note(10)).ok());
  while (journal->stats().current == first) {
    std::this_thread::yield();
  }
  item.regions = {"second"};
  const Sequence second = commit(*journal, {&item});
  REQUIRE(second > first);
  REQUIRE(journal->on_stable(second, calls.note(20)).ok());
  REQUIRE(journal->on_stable(first, calls.note(11)).ok());
  REQUIRE(journal->on_stable(second, calls.note(21)).ok());
  REQUIRE(journal->on_stable(first, calls.note(12)).ok());
  armed = false;
  closed.unlock();
  CHECK(calls.wait(5) == std::vector<std::uint64_t>{10, 11, 12, 20, 21});
  world.disk.on_io({});
  finish(journal);
}

TEST_CASE("an earlier sequence that is asked for last is not held up by a later one") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  auto journal = world.open();
  std::mutex gate;
  std::unique_lock<std::mutex> closed(gate);
  Calls calls;
  item.regions = {"first"};
  const Sequence first = commit(*journal, {&item});
  REQUIRE(journal->force(first).ok());
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite || io.op == SimOp::kFlush) {
      const std::lock_guard<std::mutex> wait(gate);  // the second checkpoint hangs
    }
  });
  const Sequence second = commit(*journal, {&item});
  REQUIRE(journal->on_stable(second, calls.note(2)).ok());
  while (!is_asleep(thread_named("keel-callbacks"))) {  // waits for the second
    std::this_thread::yield();
  }
  REQUIRE(journal->on_stable(first, calls.note(1)).ok());
  CHECK(calls.wait(1) == std::vector<std::uint64_t>{1});
  closed.unlock();
  CHECK(calls.wait(2) == std::vector<std::uint64_t>{1, 2});
  world.disk.on_io({});
  finish(journal);
}

TEST_CASE("a callback may commit and ask again, close calls all that are pending first") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), other(trace, 2);
  item.regions = {"item"};
  other.regions = {"committed in a callback"};
  Calls calls;
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  REQUIRE(journal
              ->on_stable(sequence,
                          [&](const Status& status) {
                            REQUIRE(status.ok());
                            const Sequence later = commit(*journal, {&other});
                            REQUIRE(journal->on_stable(later, calls.note(1)).ok());
                          })
              .ok());
  calls.wait(1);
  const Sequence last = commit(*journal, {&item});
  REQUIRE(journal->on_stable(last, calls.note(2)).ok());
  REQUIRE(journal->close().ok());
  CHECK(calls.wait(0) == std::vector<std::uint64_t>{1, 2});
  CHECK(calls.codes() == std::vector<int>{-1, -1});
  const Status late = journal->on_stable(last, calls.note(3));
  REQUIRE_FALSE(late.ok());
  CHECK(late.error().code == Errc::kShutdown);
  journal.reset();
  const Found left = world.read();  // the first one's item was logged again
  REQUIRE(left.size() == 2);
  CHECK(left[0].items[0].regions == other.regions);
}

TEST_CASE("after a failed write callbacks get the first error") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"lost"};
  auto journal = world.open();
  world.disk.inject({.op = SimOp::kWrite, .nth = 1, .for_good = true});
  Calls calls;
  REQUIRE(journal->on_stable(commit(*journal, {&item}), calls.note(1)).ok());
  calls.wait(1);
  CHECK(calls.codes() == std::vector<int>{static_cast<int>(Errc::kIo)});
  CHECK_FALSE(journal->close().ok());
  journal.reset();
}

TEST_CASE("force and close in a callback are reported bugs and do nothing") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  const BugCounter bugs;
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  Calls calls;
  REQUIRE(journal
              ->on_stable(sequence,
                          [&](const Status& status) {
                            CHECK_FALSE(journal->force(sequence).ok());
                            CHECK_FALSE(journal->force_all().ok());
                            CHECK_FALSE(journal->close().ok());
                            calls.note(1)(status);
                          })
              .ok());
  calls.wait(1);
  CHECK(bugs.count(Bug::kForceInCallback) == 3);
  commit(*journal, {&item});
  finish(journal);
}

// close() waits for the callbacks before it wakes who follows: the two would wait for each other.
TEST_CASE("a callback that waits for a follower's next checkpoint is a reported bug") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  const BugCounter bugs;
  auto journal = world.open();
  auto follower = journal->follow({});
  REQUIRE(follower.ok());
  const Sequence sequence = commit(*journal, {&item});
  std::vector<Errc> refused;
  REQUIRE(journal
              ->on_stable(sequence,
                          [&](const Status&) {
                            CHECK((*follower)->next().ok());  // it is there
                            for (const std::uint64_t timeout_ns : {UINT64_MAX, std::uint64_t{0}}) {
                              refused.push_back((*follower)->next(timeout_ns).error().code);
                            }
                          })
              .ok());
  CHECK(journal->close().ok());
  CHECK(refused == std::vector{Errc::kInvalidArgument, Errc::kTimeout});
  CHECK(bugs.count(Bug::kForceInCallback) == 1);
  follower->reset();
  journal.reset();
}

TEST_CASE("without a thread for callbacks on_stable() says so, and the callback is not called") {
  if (!ThreadRefusal::works()) {
    skip_case("a sanitizer's own start of threads cannot be refused");
    return;
  }
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  Calls calls;
  const Sequence sequence = commit(*journal, {&item});
  {
    const ThreadRefusal refusal(0);
    const Status refused = journal->on_stable(sequence, calls.note(1));
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == Errc::kSystem);
  }
  REQUIRE(journal->on_stable(sequence, calls.note(2)).ok());
  CHECK(calls.wait(1) == std::vector<std::uint64_t>{2});
  finish(journal);
}

TEST_CASE("threads that commit and ask: every callback once, in order, with its sequence stable") {
  LogWorld world;
  Trace trace;
  auto journal = world.open();
  std::atomic<std::uint64_t> called{0};
  std::uint64_t newest = 0;  // of the callbacks' thread
  bool in_order = true;
  constexpr int kThreads = 3;
  constexpr int kRounds = 200;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < kThreads; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {"some bytes"};
    items.back()->after = Tracking::kRelease;
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const Sequence sequence = commit(*journal, {items[static_cast<std::size_t>(t)].get()});
        const Status asked = journal->on_stable(sequence, [&, sequence](const Status& status) {
          // Equal and lower ones may come late, if they were stable when they were asked for.
          in_order = in_order && status.ok() && journal->stable_sequence() >= sequence;
          newest = std::max(newest, sequence.value());
          ++called;
        });
        KEEL_CHECK(asked.ok(), "on_stable");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  REQUIRE(journal->close().ok());
  CHECK(called == kThreads * kRounds);
  CHECK(in_order);
  CHECK(newest == journal->stable_sequence().value());
  journal.reset();
}

TEST_CASE("a callback that asks for an earlier sequence than the next one has it called before") {
  StableSequence stable(Sequence(7));
  StableCallbacks callbacks(stable);
  std::mutex gate;
  std::unique_lock<std::mutex> closed(gate);
  Calls calls;
  REQUIRE(callbacks
              .add(Sequence(4),
                   [&](const Status& status) {
                     calls.note(4)(status);
                     const std::lock_guard<std::mutex> wait(gate);  // until all have asked
                   })
              .ok());
  calls.wait(1);
  REQUIRE(callbacks
              .add(Sequence(5),
                   [&](const Status& status) {
                     calls.note(5)(status);
                     REQUIRE(callbacks.add(Sequence(6), calls.note(6)).ok());
                   })
              .ok());
  REQUIRE(callbacks.add(Sequence(7), calls.note(7)).ok());
  closed.unlock();
  CHECK(calls.wait(4) == std::vector<std::uint64_t>{4, 5, 6, 7});
  callbacks.close();
}

TEST_CASE("earlier and earlier sequences may be asked for faster than one is waited for") {
  constexpr std::uint64_t kRounds = 300;
  constexpr std::uint64_t kAsked = 60;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    StableSequence stable(Sequence(0));
    StableCallbacks callbacks(stable);
    std::atomic<std::uint64_t> called{0};
    const auto ask = [&](std::uint64_t sequence) {
      REQUIRE(callbacks.add(Sequence(sequence), [&](const Status&) { ++called; }).ok());
    };
    for (std::uint64_t sequence = kAsked; sequence > 0; --sequence) {
      ask(sequence);
      for (std::uint64_t pause = 0; pause < round % 30; ++pause) {
        std::this_thread::yield();
      }
    }
    for (std::uint64_t sequence = 1; sequence <= kAsked; ++sequence) {
      stable.advance(Sequence(sequence));
    }
    callbacks.close();
    REQUIRE(called == kAsked);
  }
}
