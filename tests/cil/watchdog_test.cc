// The watchdog: what is stalled is reported once, with what it waits for; what is only busy is not.
// A report that must come is waited for, and its test fails by hanging; that none comes is seen for
// four deadlines, and on a busy machine sees less.
// Transactions that cannot begin have watchdog_begin_test.cc.
#include <doctest/doctest.h>
#include <sched.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "probe.h"
#include "watchdog_world.h"

using namespace keel;
using namespace keel_test;

namespace {

using What = StallReport::What;
using WaitsFor = StallReport::WaitsFor;

// Runs on one of the CPUs that it may use, by number; on any if there are not so many.
void go_to_cpu(int number) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    return;
  }
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && number-- == 0) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      (void)::sched_setaffinity(0, sizeof one, &one);
    }
  }
}

// Until the gate is opened.
void hang(LogWorld& world, ClosableGate& gate) {
  gate.close();
  world.disk.on_io([&gate](const SimIo& io) {
    if (io.op == SimOp::kWrite || io.op == SimOp::kFlush) {
      gate.pass();
    }
  });
}

}  // namespace

TEST_CASE("a force behind a device that hangs is reported once, with the write it waits for") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open(reports.config(kLongDeadlineNs));
  const Sequence sequence = commit(*journal, {&item});
  const Lsn head = journal->stats().tail + journal->stats().log_used;
  hang(world, gate);
  std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
  const StallReport force = reports.wait_for(What::kForce);
  const StallReport push = reports.wait_for(What::kPush, WaitsFor::kWrite);
  let_it_look(kLongDeadlineNs);
  CHECK(force.waits_for == WaitsFor::kWrite);
  CHECK(force.sequence == sequence);
  CHECK(force.waited_ns >= kLongDeadlineNs);
  CHECK(force.lsn == push.lsn);
  CHECK(push.sequence == sequence);
  CHECK(push.lsn <= head);
  CHECK(reports.line(What::kForce, WaitsFor::kWrite).find("waiting for the device") !=
        std::string::npos);
  CHECK(reports.count(What::kForce) == 1);
  CHECK(reports.count(What::kPush, WaitsFor::kWrite) == 1);
  gate.open();
  forcer.join();
  world.disk.on_io({});
  finish(journal);
}

// Nothing is left to force: it is the log's end that close() records.
TEST_CASE("a close behind a device that hangs is reported once, and returns when the hang ends") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open(reports.config(kLongDeadlineNs));
  const Sequence sequence = commit(*journal, {&item});
  CHECK(journal->force(sequence).ok());
  hang(world, gate);
  std::thread closer([&] { CHECK(journal->close().ok()); });
  const StallReport close = reports.wait_for(What::kClose, WaitsFor::kWrite);
  let_it_look(kLongDeadlineNs);
  CHECK(close.waited_ns >= kLongDeadlineNs);
  CHECK(reports.line(What::kClose, WaitsFor::kWrite).find("waiting for the device") !=
        std::string::npos);
  CHECK(reports.count(What::kClose, WaitsFor::kWrite) == 1);
  gate.open();
  closer.join();
  world.disk.on_io({});
  journal.reset();
}

TEST_CASE("a close that hangs in a client's push() is reported with the item's type") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  // A late look that sees the close and the push for the first time tells of the close alone.
  auto journal = world.open(reports.config(kLongDeadlineNs));
  Probe item(trace, 1);
  item.regions = {"x"};
  item.home = [&](Probe& asked) {
    gate.pass();
    (void)journal->release(asked);
    return PushResult::kStarted;
  };
  CHECK(journal->force(commit(*journal, {&item})).ok());
  gate.close();
  std::thread closer([&] { CHECK(journal->close().ok()); });
  const StallReport close = reports.wait_for(What::kClose, WaitsFor::kClientPush);
  REQUIRE(close.holder_count == 1);
  CHECK(close.holders[0].type == 17);
  gate.open();
  closer.join();
  CHECK_FALSE(item.tracked());
  journal.reset();
}

TEST_CASE("a close that hangs in a callback of on_stable() is reported") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open(reports.config());
  const Sequence sequence = commit(*journal, {&item});
  gate.close();
  CHECK(journal->on_stable(sequence, [&](const Status&) { gate.pass(); }).ok());
  std::thread closer([&] { CHECK(journal->close().ok()); });
  (void)reports.wait_for(What::kClose, WaitsFor::kStableCallback);
  CHECK(
      reports.line(What::kClose, WaitsFor::kStableCallback).find("the callbacks of on_stable()") !=
      std::string::npos);
  gate.open();
  closer.join();
  journal.reset();
}

TEST_CASE("a close that hangs in an item's release() is reported") {
  // What the journal lets go of at its end.
  class Stubborn : public Probe {
   public:
    Stubborn(Trace& trace, ClosableGate& gate) : Probe(trace, 1), gate_(gate) {}

   protected:
    void release(bool aborted) override {
      gate_.pass();
      Probe::release(aborted);
    }

   private:
    ClosableGate& gate_;
  };
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  Stubborn item(trace, gate);
  item.regions = {"x"};
  auto journal = world.open(reports.config());
  CHECK(journal->force(commit(*journal, {&item})).ok());
  gate.close();
  std::thread closer([&] { CHECK(journal->close().ok()); });
  (void)reports.wait_for(What::kClose, WaitsFor::kCompletion);
  gate.open();
  closer.join();
  CHECK(trace.count(Call::kRelease) == 1);
  journal.reset();
}

TEST_CASE("a commit that hangs in format() is reported, and the force and the push behind it") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  Probe good(trace, 1), bad(trace, 2);
  good.regions = bad.regions = {"x"};
  bad.during_format = [&] { gate.pass(); };
  auto journal = world.open(reports.config(kLongDeadlineNs));
  const Sequence sequence = commit(*journal, {&good});
  gate.close();
  std::thread committer([&] { commit(*journal, {&bad}); });
  const StallReport stuck = reports.wait_for(What::kCommit);
  CHECK(stuck.waits_for == WaitsFor::kFormat);
  CHECK(stuck.part != UINT32_MAX);
  CHECK(stuck.sequence == sequence);
  std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
  const StallReport force = reports.wait_for(What::kForce);
  const StallReport push = reports.wait_for(What::kPush);
  CHECK(force.waits_for == WaitsFor::kContextLock);
  CHECK(force.part == stuck.part);
  CHECK(push.waits_for == WaitsFor::kContextLock);
  CHECK(push.part == stuck.part);
  let_it_look(kLongDeadlineNs);
  CHECK(reports.count(What::kCommit) == 1);
  CHECK(reports.count(What::kForce) == 1);
  CHECK(reports.count(What::kPush) == 1);
  gate.open();
  committer.join();
  forcer.join();
  finish(journal);
}

TEST_CASE("a completion that hangs in an item's callback is reported as that") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  struct Slow : Probe {
    Slow(Trace& trace, ClosableGate& at) : Probe(trace, 1), gate(at) {}
    Tracking committed(Lsn) override {
      gate.pass();
      return Tracking::kTrack;
    }
    ClosableGate& gate;
  };
  Trace trace;
  Slow item(trace, gate);
  item.regions = {"x"};
  auto journal = world.open(reports.config(kLongDeadlineNs));
  gate.close();
  const Sequence sequence = commit(*journal, {&item});
  std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
  const StallReport push = reports.wait_for(What::kPush, WaitsFor::kCompletion);
  CHECK(push.sequence == sequence);
  CHECK(reports.wait_for(What::kForce).waits_for == WaitsFor::kCompletion);
  // A checkpoint that is written behind it waits for its turn: no stall of its own.
  Probe behind(trace, 2);
  behind.regions = {"x"};
  const Sequence after = commit(*journal, {&behind});
  std::thread second([&] { CHECK(journal->force(after).ok()); });
  while (journal->stats().in_flight != 2) {
    std::this_thread::yield();
  }
  let_it_look(kLongDeadlineNs);
  CHECK(reports.count(What::kPush, WaitsFor::kCompletion) == 1);
  gate.open();
  forcer.join();
  second.join();
  finish(journal);
}

TEST_CASE("a stall that ended and comes again is reported again") {
  LogWorld world;
  StallReports reports;
  ClosableGate gate;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  item.during_format = [&] { gate.pass(); };
  auto journal = world.open(reports.config());
  for (int round = 1; round <= 2; ++round) {
    gate.close();
    std::thread committer([&] { commit(*journal, {&item}); });
    while (reports.count(What::kCommit) < round) {
      std::this_thread::yield();
    }
    gate.open();
    committer.join();
  }
  finish(journal);
}

TEST_CASE("a journal that is only busy is not reported, switched off, nothing is") {
  for (const bool off : {false, true}) {
    LogWorld world;
    StallReports reports;
    Trace trace;
    JournalConfig config = reports.config();
    // (Nobody who is only busy is off the CPU for so long.)
    config.stall_after_ns = off ? UINT64_MAX : 60'000'000'000;
    auto journal = world.open(config);
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        Probe item(trace, t);
        item.after = Tracking::kRelease;
        item.regions = {std::string(10000, 'x')};
        for (int i = 0; i < 300; ++i) {
          const Sequence sequence = commit(*journal, {&item}, 11000);
          if (i % 8 == 0) {
            KEEL_CHECK(journal->force(sequence).ok(), "force");
          }
        }
        KEEL_CHECK(journal->force_all().ok(), "force");
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    finish(journal);
    for (const What what : {What::kForce, What::kBegin, What::kCommit, What::kPush}) {
      CHECK(reports.count(what) == 0);
    }
  }
}

TEST_CASE("a long report fits its line") {
  StallReport report;
  report.what = What::kBegin;
  report.waits_for = WaitsFor::kTail;
  report.waited_ns = UINT64_MAX;
  report.sequence = Sequence(UINT64_MAX);
  report.lsn = Lsn(UINT64_MAX);
  report.items_at_tail = SIZE_MAX;
  report.holders.fill({UINT32_MAX, UINT64_MAX});
  report.holder_count = report.holders.size();
  std::string text(64, '#');
  CHECK(describe(report, text.data(), 40) == 39);
  CHECK(text[39] == '\0');
  CHECK(text[40] == '#');
  CHECK(describe(report, text.data() + 41, 1) == 0);
  CHECK(text[41] == '\0');
  CHECK(describe(report, text.data() + 42, 0) == 0);
  CHECK(text.substr(42) == std::string(22, '#'));
  CHECK(describe(report, nullptr, 0) == 0);
  std::string whole(600, '#');
  const std::size_t length = describe(report, whole.data(), 512);
  CHECK(length < 511);
  CHECK(whole.find("id 18446744073709551615") != std::string::npos);
}

TEST_CASE("whatever is stalled and whatever it waits for has words of its own") {
  std::set<std::string> words;
  for (const What what : {What::kForce, What::kBegin, What::kCommit, What::kPush, What::kClose}) {
    words.insert(to_string(what));
  }
  for (const WaitsFor waits_for :
       {WaitsFor::kFormat, WaitsFor::kContextLock, WaitsFor::kWrite, WaitsFor::kCompletion,
        WaitsFor::kClientPush, WaitsFor::kMemory, WaitsFor::kTail, WaitsFor::kOpenTransactions,
        WaitsFor::kThread, WaitsFor::kStableCallback}) {
    words.insert(to_string(waits_for));
  }
  CHECK(words.size() == 15);
  CHECK(words.count("unknown") == 0);
  CHECK(std::string(to_string(static_cast<What>(77))) == "unknown");
  CHECK(std::string(to_string(static_cast<WaitsFor>(77))) == "unknown");
}

TEST_CASE("without a callback a stall is a message") {
  static std::atomic<bool> said{false};
  const MessageHook before = set_message_hook([](const char* text) {
    said = said || std::string(text).find("waiting for the device") != std::string::npos;
  });
  LogWorld world;
  ClosableGate gate;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  JournalConfig config;
  config.stall_after_ns = kDeadlineNs;
  auto journal = world.open(config);
  const Sequence sequence = commit(*journal, {&item});
  gate.close();
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite) {
      gate.pass();
    }
  });
  std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
  while (!said) {
    std::this_thread::yield();
  }
  gate.open();
  forcer.join();
  world.disk.on_io({});
  finish(journal);
  set_message_hook(before);
}

TEST_CASE("a force that no thread takes up says so, or which commit is in its way") {
  // No thread of the journal gets as far as its work.
  class Stuck : public SimDisk {
   public:
    int mlockall(int) override { return 0; }
    int set_io_flusher() override {
      gate.pass();
      return 0;
    }
    ClosableGate gate;
  };
  for (const bool commit_hangs : {false, true}) {
    CAPTURE(commit_hangs);
    Stuck disk;
    const ScopedOs scope(disk);
    StallReports reports;
    ClosableGate gate;
    Trace trace;
    Probe good(trace, 1), bad(trace, 2);
    good.regions = bad.regions = {"x"};
    bad.during_format = [&] { gate.pass(); };
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    disk.gate.close();
    JournalConfig config = reports.config();
    config.lock_memory = true;
    auto journal = Journal::open(kLogPath, config, kIgnore);
    REQUIRE(journal.ok());
    const Sequence sequence = commit(**journal, {&good});
    std::thread committer;
    std::uint32_t part = UINT32_MAX;
    if (commit_hangs) {
      gate.close();
      committer = std::thread([&] { commit(**journal, {&bad}); });
      part = reports.wait_for(What::kCommit).part;
      CHECK(part != UINT32_MAX);
    }
    // Who does not wait for ever leaves the push to the journal's threads.
    std::thread forcer([&] { CHECK((*journal)->force(sequence, UINT64_MAX - 1).ok()); });
    const StallReport force = reports.wait_for(What::kForce);
    CHECK(force.sequence == sequence);
    CHECK(force.waits_for == (commit_hangs ? WaitsFor::kContextLock : WaitsFor::kThread));
    CHECK(force.part == part);
    CHECK(force.lsn == Lsn{});
    CHECK(reports.count(What::kPush) == 0);
    gate.open();
    disk.gate.open();
    forcer.join();
    if (commit_hangs) {
      committer.join();
    }
    finish(*journal);
  }
}

TEST_CASE("of two commits that hang the push behind them blames the one that hangs longer") {
  for (const int first_cpu : {0, 1}) {
    LogWorld world;
    StallReports reports;
    ClosableGate gate;
    Trace trace;
    Probe good(trace, 1), first(trace, 2), second(trace, 3);
    good.regions = first.regions = second.regions = {"x"};
    first.during_format = second.during_format = [&] { gate.pass(); };
    auto journal = world.open(reports.config());
    const Sequence sequence = commit(*journal, {&good});
    gate.close();
    const auto hang = [&](Probe& item, int cpu) {
      return std::thread([&, cpu] {
        go_to_cpu(cpu);
        commit(*journal, {&item});
      });
    };
    std::thread longer = hang(first, first_cpu);
    const StallReport stuck = reports.wait_for(What::kCommit);
    std::thread shorter = hang(second, 1 - first_cpu);
    let_it_look();
    std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
    const StallReport push = reports.wait_for(What::kPush, WaitsFor::kContextLock);
    CHECK(push.part == stuck.part);
    gate.open();
    longer.join();
    shorter.join();
    forcer.join();
    finish(journal);
  }
}
