// The watchdog: what is stalled is reported once, with what it waits for; what is only busy is not.
// No test here waits for time to pass but for a report that must come: it fails by hanging.
#include <doctest/doctest.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

namespace {

using What = StallReport::What;
using WaitsFor = StallReport::WaitsFor;

constexpr std::uint64_t kDeadlineNs = 40'000'000;

class Reports {
 public:
  [[nodiscard]] JournalConfig config() {
    JournalConfig config;
    config.stall_after_ns = kDeadlineNs;
    config.on_stall = [this](const StallReport& report) {
      const std::lock_guard<std::mutex> lock(mutex_);
      reports_.push_back(report);
      lines_.emplace_back(report.line);
      changed_.notify_all();
    };
    return config;
  }
  StallReport wait_for(What what) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      for (const StallReport& report : reports_) {
        if (report.what == what) {
          return report;
        }
      }
      changed_.wait(lock);
    }
  }
  StallReport wait_for(What what, Sequence sequence) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      for (const StallReport& report : reports_) {
        if (report.what == what && report.sequence == sequence) {
          return report;
        }
      }
      changed_.wait(lock);
    }
  }
  int count(What what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    int found = 0;
    for (const StallReport& report : reports_) {
      found += report.what == what ? 1 : 0;
    }
    return found;
  }
  std::string line(What what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t i = 0; i < reports_.size(); ++i) {
      if (reports_[i].what == what) {
        return lines_[i];
      }
    }
    return "";
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StallReport> reports_;
  std::vector<std::string> lines_;
};

// Holds whoever passes it while it is closed.
class Gate {
 public:
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !closed_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
};

// Transactions in threads of their own, more than the log has room for at once, that end when the
// gate is open.
class OpenTransactions {
 public:
  OpenTransactions(Journal& journal, std::size_t bytes) {
    gate_.close();
    for (int i = 0; i < 16; ++i) {
      threads_.emplace_back([this, &journal, bytes] {
        const auto transaction = journal.begin(bytes, 1);
        CHECK(transaction.ok());
        gate_.pass();
      });
    }
  }
  ~OpenTransactions() {
    gate_.open();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  OpenTransactions(const OpenTransactions&) = delete;
  OpenTransactions& operator=(const OpenTransactions&) = delete;

 private:
  Gate gate_;
  std::vector<std::thread> threads_;
};

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

// Time for the watchdog to look many times more: it is awake all that while.
void let_it_look() { os().sleep_ns(4 * kDeadlineNs); }

}  // namespace

TEST_CASE("a force behind a device that hangs is reported once, with the write it waits for") {
  LogWorld world;
  Reports reports;
  Gate gate;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open(reports.config());
  const Sequence sequence = commit(*journal, {&item});
  const Lsn head = journal->stats().tail + journal->stats().log_used;
  gate.close();
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite || io.op == SimOp::kFlush) {
      gate.pass();
    }
  });
  std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
  const StallReport force = reports.wait_for(What::kForce);
  const StallReport push = reports.wait_for(What::kPush);
  let_it_look();
  CHECK(force.waits_for == WaitsFor::kWrite);
  CHECK(force.sequence == sequence);
  CHECK(force.waited_ns >= kDeadlineNs);
  CHECK(force.lsn == push.lsn);
  CHECK(push.waits_for == WaitsFor::kWrite);
  CHECK(push.sequence == sequence);
  CHECK(push.lsn <= head);
  CHECK(reports.line(What::kForce).find("waiting for the device") != std::string::npos);
  CHECK(reports.count(What::kForce) == 1);
  CHECK(reports.count(What::kPush) == 1);
  CHECK(reports.count(What::kCommit) == 0);
  gate.open();
  forcer.join();
  world.disk.on_io({});
  finish(journal);
}

TEST_CASE("a commit that hangs in format() is reported, and the force and the push behind it") {
  LogWorld world;
  Reports reports;
  Gate gate;
  Trace trace;
  Probe good(trace, 1), bad(trace, 2);
  good.regions = bad.regions = {"x"};
  bad.during_format = [&] { gate.pass(); };
  auto journal = world.open(reports.config());
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
  let_it_look();
  CHECK(reports.count(What::kCommit) == 1);
  CHECK(reports.count(What::kForce) == 1);
  CHECK(reports.count(What::kPush) == 1);
  gate.open();
  committer.join();
  forcer.join();
  finish(journal);
}

TEST_CASE("a begin on a full log whose items are locked is reported with them and the tail") {
  LogWorld world;
  Reports reports;
  Trace trace;
  std::atomic<bool> locked{true};
  auto journal = world.open(reports.config());
  std::vector<std::unique_ptr<Probe>> items;
  std::atomic<bool> full{false};
  std::thread filler([&] {
    for (std::uint32_t i = 0; i < 60; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(30000, 'x')};
      items.back()->home = [&](Probe& item) {
        if (locked) {
          return PushResult::kLocked;
        }
        (void)journal->release(item);
        return PushResult::kStarted;
      };
      commit(*journal, {items.back().get()}, 31000);
    }
    full = true;
  });
  const StallReport begin = reports.wait_for(What::kBegin);
  CHECK_FALSE(full);
  CHECK(begin.waits_for == WaitsFor::kTail);
  CHECK(begin.lsn == journal->stats().tail);
  CHECK(begin.items_at_tail >= 1);
  REQUIRE(begin.holder_count >= 1);
  CHECK(begin.holders[0].type == 16);  // the first
  let_it_look();
  CHECK(reports.count(What::kBegin) == 1);
  CHECK(reports.line(What::kBegin).find("held by") != std::string::npos);
  locked = false;
  filler.join();
  finish(journal);
}

TEST_CASE("a begin behind a client's push() that hangs names the item's type") {
  LogWorld world;
  Reports reports;
  Gate gate;
  Trace trace;
  auto journal = world.open(reports.config());
  std::vector<std::unique_ptr<Probe>> items;
  gate.close();
  std::thread filler([&] {
    for (std::uint32_t i = 0; i < 60; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(30000, 'x')};
      items.back()->home = [&](Probe& item) {
        gate.pass();
        (void)journal->release(item);
        return PushResult::kStarted;
      };
      commit(*journal, {items.back().get()}, 31000);
    }
  });
  const StallReport begin = reports.wait_for(What::kBegin);
  CHECK(begin.waits_for == WaitsFor::kClientPush);
  REQUIRE(begin.holder_count == 1);
  CHECK(begin.holders[0].type == 16);
  gate.open();
  filler.join();
  finish(journal);
}

TEST_CASE("a completion that hangs in an item's callback is reported as that") {
  LogWorld world;
  Reports reports;
  Gate gate;
  struct Slow : Probe {
    Slow(Trace& trace, Gate& at) : Probe(trace, 1), gate(at) {}
    Tracking committed(Lsn) override {
      gate.pass();
      return Tracking::kTrack;
    }
    Gate& gate;
  };
  Trace trace;
  Slow item(trace, gate);
  item.regions = {"x"};
  auto journal = world.open(reports.config());
  gate.close();
  const Sequence sequence = commit(*journal, {&item});
  std::thread forcer([&] { CHECK(journal->force(sequence).ok()); });
  const StallReport push = reports.wait_for(What::kPush);
  CHECK(push.waits_for == WaitsFor::kCompletion);
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
  let_it_look();
  CHECK(reports.count(What::kPush) == 1);
  gate.open();
  forcer.join();
  second.join();
  finish(journal);
}

TEST_CASE("a stall that ended and comes again is reported again") {
  LogWorld world;
  Reports reports;
  Gate gate;
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
    Reports reports;
    Trace trace;
    JournalConfig config = reports.config();
    config.stall_after_ns = off ? UINT64_MAX : 2'000'000'000;
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
  std::string whole(600, '#');
  const std::size_t length = describe(report, whole.data(), 512);
  CHECK(length < 511);
  CHECK(whole.find("id 18446744073709551615") != std::string::npos);
}

TEST_CASE("whatever is stalled and whatever it waits for has words of its own") {
  std::set<std::string> words;
  for (const What what : {What::kForce, What::kBegin, What::kCommit, What::kPush}) {
    words.insert(to_string(what));
  }
  for (const WaitsFor waits_for :
       {WaitsFor::kFormat, WaitsFor::kContextLock, WaitsFor::kWrite, WaitsFor::kCompletion,
        WaitsFor::kClientPush, WaitsFor::kMemory, WaitsFor::kTail, WaitsFor::kOpenTransactions,
        WaitsFor::kThread}) {
    words.insert(to_string(waits_for));
  }
  CHECK(words.size() == 13);
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
  Gate gate;
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

TEST_CASE("a begin behind open transactions is reported with which room they have taken") {
  for (const bool memory : {false, true}) {
    LogWorld world;
    Reports reports;
    JournalConfig config = reports.config();
    config.cil_memory = Bytes(memory ? 130'000 : 0);
    auto journal = world.open(config);
    {
      const OpenTransactions open(*journal, memory ? 10'000 : 20'000);
      const StallReport begin = reports.wait_for(What::kBegin);
      CHECK(begin.waits_for == (memory ? WaitsFor::kMemory : WaitsFor::kOpenTransactions));
      CHECK(begin.holder_count == 0);
    }
    finish(journal);
  }
}

TEST_CASE("a begin on a full log is reported with the ids of the objects that hold it") {
  struct Locked : ObjectItem {
    explicit Locked(std::uint64_t id) : ObjectItem(id) {}
    bool has_home() const override { return true; }
    PushResult push() override {
      if (locked) {
        return PushResult::kLocked;
      }
      (void)journal->release(*this);
      return PushResult::kStarted;
    }
    std::atomic<bool> locked{true};
    Journal* journal = nullptr;
  };
  LogWorld world;
  Reports reports;
  Trace trace;
  Locked object(4711);
  const std::string bytes = "an object";
  object.set(bytes.data(), bytes.size());
  Probe item(trace, 1);
  item.after = Tracking::kRelease;
  item.regions = {std::string(30'000, 'x')};
  auto journal = world.open(reports.config());
  object.journal = journal.get();
  REQUIRE(journal->force(commit(*journal, {&object})).ok());
  std::thread filler([&] {
    for (int i = 0; i < 60; ++i) {
      CHECK(journal->force(commit(*journal, {&item}, 31'000)).ok());
    }
  });
  const StallReport begin = reports.wait_for(What::kBegin);
  CHECK(begin.waits_for == WaitsFor::kTail);
  CHECK(begin.items_at_tail == 1);
  REQUIRE(begin.holder_count == 1);
  CHECK(begin.holders[0].type == 1);
  CHECK(begin.holders[0].id == 4711);
  object.locked = false;
  filler.join();
  finish(journal);
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
    Gate gate;
  };
  for (const bool commit_hangs : {false, true}) {
    CAPTURE(commit_hangs);
    Stuck disk;
    const ScopedOs scope(disk);
    Reports reports;
    Gate gate;
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
    Reports reports;
    Gate gate;
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
    const StallReport push = reports.wait_for(What::kPush);
    CHECK(push.waits_for == WaitsFor::kContextLock);
    CHECK(push.part == stuck.part);
    gate.open();
    longer.join();
    shorter.join();
    forcer.join();
    finish(journal);
  }
}

TEST_CASE("a begin with several checkpoints in flight is reported with the oldest of them") {
  struct Slow : Probe {
    Slow(Trace& trace, std::uint32_t id, Gate& at) : Probe(trace, id), gate(at) {}
    Tracking committed(Lsn) override {
      gate.pass();
      return Tracking::kTrack;
    }
    Gate& gate;
  };
  // The older of the two may have either place among those that are in flight.
  for (const bool first_ends : {false, true}) {
    CAPTURE(first_ends);
    LogWorld world;
    Reports reports;
    Gate first_gate, second_gate;
    Trace trace;
    Slow first(trace, 1, first_gate), second(trace, 2, second_gate);
    Probe third(trace, 3);
    first.regions = second.regions = third.regions = {"x"};
    JournalConfig config = reports.config();
    config.depth = 2;
    auto journal = world.open(config);
    first_gate.close();
    second_gate.close();
    std::vector<std::thread> forcers;
    const auto force = [&](LogItem& item) {
      const Sequence sequence = commit(*journal, {&item});
      forcers.emplace_back([&, sequence] { CHECK(journal->force(sequence).ok()); });
      return sequence;
    };
    const auto both_in_flight = [&] {
      while (journal->stats().in_flight != 2) {
        std::this_thread::yield();
      }
    };
    Sequence oldest = force(first);
    (void)reports.wait_for(What::kPush, oldest);
    const Sequence behind = force(second);
    both_in_flight();
    if (first_ends) {
      first_gate.open();
      (void)reports.wait_for(What::kPush, behind);
      oldest = behind;
      (void)force(third);
      both_in_flight();
    }
    {
      const OpenTransactions open(*journal, 20'000);
      const StallReport begin = reports.wait_for(What::kBegin);
      CHECK(begin.waits_for == WaitsFor::kCompletion);
      CHECK(begin.lsn == reports.wait_for(What::kPush, oldest).lsn);
    }
    first_gate.open();
    second_gate.open();
    for (std::thread& forcer : forcers) {
      forcer.join();
    }
    finish(journal);
  }
}
