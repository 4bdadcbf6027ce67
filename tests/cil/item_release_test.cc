// What an item leaves behind, and when it leaves: released while a checkpoint has it, or ordered.
#include <doctest/doctest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/base/thread_scheduler.h"
#include "log_vector.h"
#include "probe.h"
#include "support/bug_recorder.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("an item that is released while a checkpoint has it leaves when that is stable") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item});
  CHECK_FALSE(journal->release(item));
  CHECK(trace.count(Call::kRelease) == 0);
  REQUIRE(journal->force(sequence).ok());
  CHECK_FALSE(item.tracked());
  CHECK(trace.count(Call::kRelease) == 1);
  journal->audit();
  finish(journal);
  CHECK(world.read().empty());
}

namespace {

// Whether the item could be logged again, once nothing has it.
bool has_snapshot(const LogItem& item) {
  const LogVector* shadow = ItemAccess::shadow(item);
  return shadow != nullptr && ItemAccess::is_newest_snapshot(item, *shadow);
}

// A checkpoint that only orders the item lets go of it, and a commit that only orders it crosses:
// it stays tracked, and what was logged of it before is home.
void order_across_a_release(Journal& journal, Probe& item) {
  item.is_ordered = true;
  item.after = Tracking::kRelease;
  Gate gate;
  item.during_committed = [&] {
    if (!gate.arrived()) {
      gate.pass();
    }
  };
  const Sequence leaves = commit(journal, {&item});
  std::thread forcer([&] { CHECK(journal.force(leaves).ok()); });
  gate.wait_for_arrival();
  const Sequence stays = commit(journal, {&item});
  gate.open();
  forcer.join();
  item.after = Tracking::kTrack;
  REQUIRE(journal.force(stays).ok());
  item.during_committed = nullptr;  // No checkpoint has the item.
  CHECK(item.tracked());
}

}  // namespace

TEST_CASE("an item that is only ordered while a checkpoint lets go of it is not logged again") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  REQUIRE(has_snapshot(item));
  order_across_a_release(*journal, item);
  CHECK(trace.count(Call::kRelease) == 0);
  CHECK_FALSE(has_snapshot(item));
  item.is_ordered = false;  // and what it is given then counts
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  CHECK(has_snapshot(item));
  journal->audit();
  CHECK(journal->release(item));
  finish(journal);
}

TEST_CASE("what a checkpoint has let go of is not logged again, though it holds the tail") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), other(trace, 2);
  item.regions = other.regions = {"x"};
  other.after = Tracking::kRelease;
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  order_across_a_release(*journal, item);
  int rounds = 0;
  for (bool full = false; !full && rounds < 600; ++rounds) {  // more than twice round the log
    (void)trace.take();
    auto transaction = journal->begin(100, 1);
    full = !transaction.ok();
    if (full) {
      CHECK(transaction.error().code == Errc::kLogFull);
    } else {
      REQUIRE(transaction->log(other).ok());
      const auto sequence = transaction->commit();
      REQUIRE(sequence.ok());
      REQUIRE(journal->force(*sequence).ok());
    }
  }
  CHECK(rounds < 600);
  journal->audit();
  // A walk of the upkeep may hold it just now.
  CHECK((journal->release(item) || soon([&item] { return !item.tracked(); })));
  finish(journal);
}

TEST_CASE("an item that is to be released, and is only ordered then, is not logged again") {
  for (const bool before : {false, true}) {  // logged in the checkpoint before, or in the same one
    CAPTURE(before);
    LogWorld world;
    Trace trace;
    Probe item(trace, 1);
    item.regions = {"x"};
    auto journal = world.open();
    Sequence logged = commit(*journal, {&item});
    if (before) {
      REQUIRE(journal->force(logged).ok());
      item.is_ordered = true;
      logged = commit(*journal, {&item});
    }
    CHECK_FALSE(journal->release(item));  // "x" is home
    item.is_ordered = true;
    CHECK(commit(*journal, {&item}) == logged);
    REQUIRE(journal->force(logged).ok());
    CHECK(item.tracked());
    CHECK_FALSE(has_snapshot(item));
    journal->audit();
    CHECK(journal->release(item));
    finish(journal);
  }
}

TEST_CASE("ordering an item that has no home keeps the snapshot that is stable in the log") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  const LogVector* snapshot = ItemAccess::shadow(item);
  REQUIRE(snapshot != nullptr);
  REQUIRE(snapshot->is_snapshot);
  item.is_ordered = true;
  const Sequence ordered = commit(*journal, {&item});
  CHECK(ItemAccess::shadow(item) == snapshot);
  CHECK(commit(*journal, {&item}) == ordered);  // once more in the same context
  CHECK(ItemAccess::shadow(item) == snapshot);
  REQUIRE(journal->force(ordered).ok());
  CHECK(ItemAccess::shadow(item) == snapshot);
  CHECK(snapshot->is_snapshot);
  journal->audit();
  CHECK(journal->release(item));
  finish(journal);
}

TEST_CASE("a cancelled transaction leaves an item that is ordered meanwhile its snapshot") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  Probe too_large(trace, 2);
  item.regions = {"x"};
  too_large.regions = {std::string(3000, 'y')};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  item.is_ordered = true;
  const Sequence ordered = commit(*journal, {&item});
  item.is_ordered = false;
  {
    auto transaction = journal->begin(1500, 2);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(item).ok());
    REQUIRE(transaction->log(too_large).ok());
    CHECK(transaction->commit().error().code == Errc::kReservationExceeded);
  }
  REQUIRE(journal->force(ordered).ok());
  const LogVector* snapshot = ItemAccess::shadow(item);
  REQUIRE(snapshot != nullptr);
  CHECK(snapshot->is_snapshot);  // or it could never be logged again, and would hold the tail
  journal->audit();
  CHECK(journal->release(item));
  finish(journal);
}

TEST_CASE("an item that is only ordered leaves no snapshot to be logged again from") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.is_ordered = true;
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  const LogVector* shadow = ItemAccess::shadow(item);
  CHECK((shadow == nullptr || !shadow->is_snapshot));
  journal->audit();
  finish(journal);
}

TEST_CASE("an item that is ordered at the second try of a commit keeps its snapshot") {
  for (const bool larger : {false, true}) {  // so that the snapshot's memory does not do
    CAPTURE(larger);
    LogWorld world;
    Trace trace;
    Probe item(trace, 1), too_large(trace, 2);
    item.regions = {"x"};
    too_large.regions = {std::string(3000, 'y')};
    auto journal = world.open();
    REQUIRE(journal->force(commit(*journal, {&item})).ok());
    const LogVector* snapshot = ItemAccess::shadow(item);
    REQUIRE(snapshot != nullptr);
    item.regions = {std::string(larger ? snapshot->capacity_bytes : 1, 'x')};
    {
      auto transaction = journal->begin(4000, 2);
      REQUIRE(transaction.ok());
      REQUIRE(transaction->log(item).ok());
      REQUIRE(transaction->log(too_large).ok());
      too_large.regions = {std::string(30'000, 'y')};
      CHECK(transaction->commit().error().code == Errc::kReservationExceeded);
      item.is_ordered = true;
      too_large.regions = {"y"};
      const auto again = transaction->commit();
      REQUIRE(again.ok());
      REQUIRE(journal->force(*again).ok());
    }
    CHECK(ItemAccess::shadow(item) == snapshot);
    CHECK(snapshot->is_snapshot);
    journal->audit();
    finish(journal);
  }
}

namespace {

class CountingOs : public Os {
 public:
  void metadata_free(void* memory) override {
    ++frees;
    Os::metadata_free(memory);
  }
  int frees = 0;
};

}  // namespace

TEST_CASE("a forked child may release an item, destroy a transaction: its parent's are untouched") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), other(trace, 2);
  item.regions = {"x"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  {
    auto transaction = journal->begin(100, 100);  // more than have their place in it
    REQUIRE(transaction.ok());
    other.regions = {std::string(50'000, 'y')};
    REQUIRE(transaction->log(other).ok());
    CHECK(transaction->commit().error().code == Errc::kReservationExceeded);
    const pid_t child = ::fork();
    if (child == 0) {
      CountingOs counting;
      const ScopedOs scope(counting);
      const bool gone = journal->release(item);
      { const Transaction dropped = std::move(*transaction); }
      ::_exit(gone && counting.frees == 0 ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  CHECK(item.tracked());
  journal->audit();
  finish(journal);
}

namespace {

// Its owner is in release() when the first one comes, until the test says so.
class Leaver : public Probe {
 public:
  Leaver(Trace& trace, std::uint32_t id) : Probe(trace, id) {
    regions = {std::string(60'000, 'x')};
  }
  Gate gate;
  std::function<void()> last;  // called by a release() after which nothing follows

 protected:
  void release(bool aborted) override {
    if (!gate.arrived()) {
      gate.pass();
    }
    Probe::release(aborted);
    if (const std::function<void()> call = last; !in_use() && call != nullptr) {
      call();  // It may destroy the item, and what is called with it.
    }
  }
};

// A journal whose upkeep has let go of the item, and waits in its release().
struct Leaving {
  explicit Leaving(LogWorld& world) : journal(world.open()) {
    item->home = [this](Probe& self) {
      CHECK_FALSE(journal->release(self));  // The journal calls release() after this.
      return PushResult::kStarted;
    };
    REQUIRE(journal->force(commit(*journal, {item.get()}, 60'000)).ok());
    while (journal->stats().log_used.value() <= journal->info().data.value() / 4 * 3) {
      others.push_back(std::make_unique<Probe>(trace, 100));
      others.back()->regions = {std::string(60'000, 'x')};
      others.back()->after = Tracking::kRelease;
      REQUIRE(journal->force(commit(*journal, {others.back().get()}, 60'000)).ok());
    }
    item->gate.wait_for_arrival();
    (void)trace.take();
  }

  Trace trace;
  std::unique_ptr<Leaver> item = std::make_unique<Leaver>(trace, 1);
  std::vector<std::unique_ptr<Probe>> others;
  std::unique_ptr<Journal> journal;
};

}  // namespace

TEST_CASE("release() that a commit has crossed finds the item in use, and comes again") {
  LogWorld world;
  Leaving leaving(world);
  std::atomic<bool> gone{false};
  leaving.item->last = [&gone] { gone = true; };
  REQUIRE(leaving.journal->force(commit(*leaving.journal, {leaving.item.get()}, 60'000)).ok());
  CHECK(leaving.item->in_use());
  const LogVector* snapshot = ItemAccess::shadow(*leaving.item);
  leaving.item->gate.open();
  yield_until([&] { return leaving.trace.count(Call::kRelease) != 0; });
  CHECK_FALSE(gone);
  CHECK(leaving.item->tracked());
  CHECK(ItemAccess::shadow(*leaving.item) == snapshot);
  (void)leaving.journal->close();
  CHECK(gone);
}

TEST_CASE("an item is not gone while release() of its former life is under way") {
  LogWorld world;
  Leaving leaving(world);
  std::atomic<int> last{0};
  leaving.item->last = [&last] { ++last; };
  REQUIRE(leaving.journal->force(commit(*leaving.journal, {leaving.item.get()}, 60'000)).ok());
  CHECK_FALSE(leaving.journal->release(*leaving.item));
  leaving.item->gate.open();
  yield_until([&] { return leaving.trace.count(Call::kRelease) == 2; });
  yield_until([&] { return last == 1; });
  CHECK_FALSE(leaving.item->in_use());
  leaving.item.reset();
  (void)leaving.journal->close();
}

TEST_CASE("an item may be destroyed on any thread as soon as release() has told that it is gone") {
  for (const bool by_another : {false, true}) {
    CAPTURE(by_another);
    LogWorld world;
    Leaving leaving(world);
    const BugRecorder bugs;
    std::atomic<bool> destroyed{false};
    leaving.item->last = [&] {
      CHECK(leaving.journal->release(*leaving.item));  // no other call follows
      if (by_another) {
        std::thread([&] { leaving.item.reset(); }).join();
      } else {
        leaving.item.reset();
      }
      destroyed = true;
    };
    leaving.item->gate.open();
    yield_until([&] { return destroyed.load(); });
    CHECK(leaving.journal->close().ok());
    CHECK(bugs.count() == 0);
  }
}

TEST_CASE("a commit that fails while release() is under way is told after it, once") {
  LogWorld world;
  Leaving leaving(world);
  std::atomic<int> last{0};
  leaving.item->last = [&last] { ++last; };
  world.disk.inject({.op = SimOp::kWrite, .nth = 1, .for_good = true});
  const Sequence sequence = commit(*leaving.journal, {leaving.item.get()}, 60'000);
  CHECK_FALSE(leaving.journal->force(sequence).ok());
  yield_until([&] { return !leaving.item->pinned(); });
  CHECK(leaving.item->aborted());
  CHECK(leaving.trace.count(Call::kRelease) + leaving.trace.count(Call::kReleaseAborted) == 0);
  CHECK_FALSE(leaving.journal->release(*leaving.item));
  leaving.item->gate.open();
  (void)leaving.journal->close();
  CHECK(leaving.trace.count(Call::kReleaseAborted) == 1);
  CHECK(last == 1);
}

#if defined(KEEL_DEBUG)

namespace {

// Where the thread that has just let go of an item comes upon its next lock that it only tries.
Gate* g_left = nullptr;
thread_local bool t_lets_go = false;

void stop_where_left(ThreadPoint what) {
  if (t_lets_go && what == ThreadPoint::kTryLock) {
    t_lets_go = false;
    g_left->pass();
  }
}

class Watched : public Probe {
 public:
  using Probe::Probe;
  std::atomic<bool> is_watched{false};

 protected:
  void unpin(bool aborted) override {
    t_lets_go = is_watched.exchange(false);
    Probe::unpin(aborted);
  }
};

}  // namespace

TEST_CASE("an item that is only ordered as it leaves is not logged again from its former life") {
  LogWorld world;
  Trace trace;
  Gate left;
  Watched item(trace, 1);
  item.regions = {"released"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  REQUIRE(ItemAccess::shadow(item) != nullptr);
  item.is_ordered = true;
  const Sequence last = commit(*journal, {&item});
  CHECK_FALSE(journal->release(item));
  item.is_watched = true;
  g_left = &left;
  const ThreadPointHook before = set_thread_point_hook(stop_where_left);
  std::thread forcer([&] { CHECK(journal->force(last).ok()); });
  left.wait_for_arrival();
  CHECK_FALSE(item.tracked());
  const Sequence ordered = commit(*journal, {&item});
  left.open();
  forcer.join();
  (void)set_thread_point_hook(before);
  REQUIRE(journal->force(ordered).ok());
  CHECK(item.tracked());
  CHECK_FALSE(has_snapshot(item));
  journal->audit();
  finish(journal);
}

#endif
