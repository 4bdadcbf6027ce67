// The watchdog: what is stalled is reported once, with what it waits for; what is only busy is not.
// No test here waits for time to pass but for a report that must come: it fails by hanging.
#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
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
