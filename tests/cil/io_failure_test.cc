// Every write, flush and read fails in turn: what is acknowledged stays, what fails is final.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

// Six objects' worth of commits, each forced; what was acknowledged.
struct Outcome {
  std::uint64_t acknowledged = 0;  // highest sequence that force() returned ok for
  Status first_error;
  bool later_differs = false;  // a later call got something else than the first error
};

void note(Outcome& outcome, const Status& status) {
  if (status.ok()) {
    return;
  }
  const Error& error = status.error();
  if (outcome.first_error.ok()) {
    outcome.first_error = error;
  } else {
    const Error& first = outcome.first_error.error();
    outcome.later_differs |= first.code != error.code || first.value != error.value ||
                             first.sys_errno != error.sys_errno;
  }
}

std::string content(std::uint64_t sequence) {
  return random_bytes(sequence, 3000 + sequence * 700);
}

// Item i logs content(i + 1) alone in sequence i + 1.
Outcome work(Journal& journal, std::vector<std::unique_ptr<Probe>>& items) {
  Outcome outcome;
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i]->regions = {content(i + 1)};
    auto transaction = journal.begin(20000, 1);
    if (!transaction) {
      note(outcome, transaction.error());
      continue;
    }
    REQUIRE(transaction->log(*items[i]).ok());
    const auto sequence = transaction->commit();
    if (!sequence) {
      note(outcome, sequence.error());
      continue;
    }
    CHECK(*sequence == Sequence(i + 1));
    const Status forced = journal.force(*sequence);
    note(outcome, forced);
    if (forced.ok()) {
      CHECK(outcome.first_error.ok());
      outcome.acknowledged = sequence->value();
    }
    if (i == 3) {
      // Gives the tail something to move.
      CHECK_FALSE((journal.release(*items[0]) && items[0]->pinned()));
    }
  }
  return outcome;
}

std::vector<std::unique_ptr<Probe>> make_items(Trace& trace) {
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < 6; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i + 1));
  }
  return items;
}

void check_content(const Found& found, std::uint64_t acknowledged) {
  std::uint64_t last = 0;
  for (const FoundCheckpoint& checkpoint : found) {
    CHECK((last == 0 || checkpoint.sequence == last + 1));
    last = checkpoint.sequence;
    CHECK(checkpoint.items ==
          std::vector<FoundItem>{{static_cast<std::uint32_t>(16 + last), {content(last)}}});
  }
  CHECK(last >= acknowledged);
}

// Runs the work with the fault; false if it was never met.
bool run_with(const SimFault& fault, bool torn) {
  LogWorld world;
  Trace trace;
  auto items = make_items(trace);
  auto journal = world.open();
  world.disk.clear_io_log();
  world.disk.inject(fault);
  Outcome outcome = work(*journal, items);
  const Status closed = journal->close();
  note(outcome, closed);
  CHECK(closed.ok() == outcome.first_error.ok());
  CHECK_FALSE(outcome.later_differs);
  CHECK(journal->close().ok() == closed.ok());  // and again
  const bool failed = !outcome.first_error.ok();
  std::size_t faults = 0, after = 0;
  for (const SimIo& io : world.disk.io_log()) {
    const bool touches = io.op == SimOp::kWrite || io.op == SimOp::kFlush;
    after += faults != 0 && touches && !io.faulty ? 1U : 0U;
    faults += io.faulty ? 1U : 0U;
  }
  if (failed) {
    CHECK(outcome.first_error.error().code == Errc::kIo);
    CHECK(faults == (fault.effect == SimFault::Effect::kShort ? 2 : 1));
    CHECK(after == 0);  // nothing is written or flushed after a failure
    const auto late = journal->begin(100, 1);
    REQUIRE_FALSE(late.ok());
    CHECK(late.error().code == Errc::kIo);
    for (const auto& item : items) {
      CHECK_FALSE(item->pinned());
    }
  }
  const std::size_t pins = trace.count(Call::kPin);
  CHECK(trace.count(Call::kUnpin) + trace.count(Call::kAbort) == pins);
  journal.reset();
  items.clear();

  world.disk.clear_faults();
  if (torn) {
    world.disk.crash(fault.nth * 31);
  }
  Found found;
  const RecoveryReport report = world.scan(found);
  CHECK(report.end != LogEnd::kDamaged);
  // Item 1 was released after sequence 4; its checkpoint may have gone.
  check_content(found, outcome.acknowledged);
  journal = world.open();
  CHECK(world.found == found);
  journal.reset();
  return faults != 0;
}

}  // namespace

TEST_CASE(
    "any write that fails shuts the journal down with its error and loses nothing acknowledged") {
  std::uint64_t nth = 1;
  for (bool met = true; met; ++nth) {
    CAPTURE(nth);
    for (const std::uint64_t landed : {0U, 512U, 4096U}) {
      for (const bool for_good : {false, true}) {
        met = run_with({.op = SimOp::kWrite, .nth = nth, .for_good = for_good, .bytes = landed},
                       true);
      }
    }
  }
  CHECK(nth > 9);
}

TEST_CASE("any flush that fails is final, also one that lost what it should have flushed") {
  std::uint64_t nth = 1;
  for (bool met = true; met; ++nth) {
    CAPTURE(nth);
    for (const auto effect : {SimFault::Effect::kFail, SimFault::Effect::kFailAndDrop}) {
      for (const bool for_good : {false, true}) {
        met = run_with({.op = SimOp::kFlush, .nth = nth, .effect = effect, .for_good = for_good},
                       true);
        met = run_with({.op = SimOp::kFlush, .nth = nth, .effect = effect, .for_good = for_good},
                       false);
      }
    }
  }
  CHECK(nth > 5);  // of the state slots: a small checkpoint is one durable write
}

// Nothing is lost when the writer ends here, only later: a second flush says that all is well.
TEST_CASE("a log in the page cache is recovered from the disk, not from pages that it lost") {
  const JournalConfig buffered{.buffered = true};
  for (const bool lost : {false, true}) {
    CAPTURE(lost);
    LogWorld world({.size = Bytes(32U << 20), .buffered = true});
    Trace trace;
    Probe first(trace, 1), large(trace, 2), last(trace, 3);
    first.regions = {"first"};
    large.regions = {random_bytes(1, 3'000'000)};  // several writes, then a flush
    last.regions = {"last"};
    auto journal = world.open(buffered);
    REQUIRE(journal->force(commit(*journal, {&first})).ok());
    if (lost) {
      world.disk.inject({.op = SimOp::kFlush, .effect = SimFault::Effect::kFailAndDrop});
    }
    CHECK(journal->force(commit(*journal, {&large}, 3'100'000)).ok() != lost);
    journal.reset();
    world.disk.clear_faults();
    journal = world.open(buffered);  // and no power was cut
    CHECK(world.found.size() == (lost ? 1 : 2));
    const Sequence kept = commit(*journal, {&last});
    REQUIRE(journal->force(kept).ok());
    world.disk.crash(1);
    journal.reset();
    Found found;
    const auto report = scan_log(kLogPath, collect_into(found), {.buffered = true});
    REQUIRE(report.ok());
    CHECK(report->end != LogEnd::kDamaged);
    CHECK(report->last_sequence == kept);
  }
}

TEST_CASE("a short write is finished once, a second short one is an error") {
  for (std::uint64_t nth = 1; nth < 12; ++nth) {
    CAPTURE(nth);
    for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{4096}}) {
      (void)run_with(
          {.op = SimOp::kWrite, .nth = nth, .effect = SimFault::Effect::kShort, .bytes = bytes},
          false);
      // For good: the rest is short again.
      LogWorld world;
      Trace trace;
      auto items = make_items(trace);
      auto journal = world.open();
      world.disk.inject({.op = SimOp::kWrite,
                         .nth = nth,
                         .effect = SimFault::Effect::kShort,
                         .for_good = true,
                         .bytes = bytes});
      const Outcome outcome = work(*journal, items);
      CHECK_FALSE(outcome.later_differs);
      (void)journal->close();
      journal.reset();
      world.disk.clear_faults();
      check_content(world.read(), outcome.acknowledged);
    }
  }
}

TEST_CASE("a write cut off inside a block is an error at once") {
  LogWorld world;
  Trace trace;
  auto items = make_items(trace);
  auto journal = world.open();
  world.disk.inject(
      {.op = SimOp::kWrite, .nth = 1, .effect = SimFault::Effect::kShort, .bytes = 512});
  const Outcome outcome = work(*journal, items);
  REQUIRE_FALSE(outcome.first_error.ok());
  CHECK(outcome.first_error.error().code == Errc::kIo);
  CHECK(outcome.acknowledged == 0);
  CHECK_FALSE(journal->close().ok());
}

namespace {

// Whoever aborts it stops there.
class Stopping final : public Probe {
 public:
  using Probe::Probe;
  Gate gate;

 protected:
  void unpin(bool aborted) override {
    Probe::unpin(aborted);
    if (aborted) {
      gate.pass();
    }
  }
};

}  // namespace

TEST_CASE("what commits while a shutdown aborts the open context is refused") {
  LogWorld world;
  Trace trace;
  Gate writing;
  Probe first(trace, 1), late(trace, 2);
  Stopping open(trace, 3);
  first.regions = late.regions = open.regions = {"x"};
  auto journal = world.open();
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && !writing.arrived()) {
      writing.pass();
    }
  });
  world.disk.inject({.op = SimOp::kWrite, .nth = 1});
  const Sequence sequence = commit(*journal, {&first});
  std::thread force([&] { CHECK_FALSE(journal->force(sequence).ok()); });
  writing.wait_for_arrival();
  (void)commit(*journal, {&open});
  auto transaction = journal->begin(100, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(late).ok());
  writing.open();
  open.gate.wait_for_arrival();
  CHECK_FALSE(transaction->commit().ok());
  open.gate.open();
  force.join();
  world.disk.on_io(nullptr);
  CHECK_FALSE(journal->close().ok());
  CHECK(trace.count(Call::kPin) == 2);
  CHECK(trace.count(Call::kAbort) == 2);
}

TEST_CASE("all waiters get the first error and wake, items of all contexts are aborted") {
  LogWorld world;
  Trace trace;
  constexpr int kWaiters = 6;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i <= kWaiters; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {"x"};
  }
  auto journal = world.open();
  // The first checkpoint's write hangs until every waiter has committed to the next context.
  std::promise<void> writing, go;
  std::atomic<bool> hung{false};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && !hung.exchange(true)) {
      writing.set_value();
      go.get_future().wait();
    }
  });
  world.disk.inject({.op = SimOp::kWrite, .nth = 1});
  const Sequence first = commit(*journal, {items[kWaiters].get()});
  std::vector<std::thread> threads;
  std::array<Status, kWaiters + 1> statuses;
  threads.emplace_back([&] { statuses[kWaiters] = journal->force(first); });
  writing.get_future().wait();
  std::atomic<int> committed{0};
  for (std::size_t i = 0; i < kWaiters; ++i) {
    threads.emplace_back([&, i] {
      const Sequence sequence = commit(*journal, {items[i].get()});
      ++committed;
      statuses[i] = journal->force(sequence);
    });
  }
  while (committed != kWaiters) {
    std::this_thread::yield();
  }
  go.set_value();
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const Status& status : statuses) {
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().code == Errc::kIo);
    CHECK(status.error().sys_errno == EIO);
  }
  // A sequence that the shutdown emptied is not stable, however empty its context looks.
  CHECK_FALSE(journal->force_all().ok());
  world.disk.on_io(nullptr);
  CHECK_FALSE(journal->close().ok());
  // Waiters wake first; all items have been let go by the close.
  CHECK(trace.count(Call::kAbort) == kWaiters + 1);
  CHECK(trace.count(Call::kUnpin) == 0);
  CHECK(trace.count(Call::kCommitted) == 0);
}

TEST_CASE(
    "a commit whose context was emptied when the state could not be written is not acknowledged") {
  LogWorld world;
  Trace trace;
  Probe first(trace, 1), second(trace, 2);
  first.regions = {std::string(150000, 'x')};
  second.regions = {"y"};
  std::vector<std::unique_ptr<Probe>> fillers;
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&first}, 150000)).ok());
  REQUIRE(journal->release(first));
  // A checkpoint that would end more than half a log beyond what the state says has it written
  // first: a block, which hangs.
  std::promise<void> writing, go;
  std::atomic<bool> hung{false};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && io.bytes == 4096 && !hung.exchange(true)) {
      writing.set_value();
      go.get_future().wait();
    }
  });
  Sequence filled{};
  const std::uint64_t half = journal->info().data.value() / 2;
  for (;;) {
    fillers.push_back(std::make_unique<Probe>(trace, 3));
    fillers.back()->regions = {std::string(60000, 'f')};
    filled = commit(*journal, {fillers.back().get()}, 60000);
    if (journal->stats().log_used.value() > half) {
      break;
    }
    REQUIRE(journal->force(filled).ok());
  }
  // The pass before may be the one that hangs, and with it this force.
  std::thread forcer([&] { (void)journal->force(filled); });
  writing.get_future().wait();
  const Sequence sequence = commit(*journal, {&second});
  world.disk.inject({.op = SimOp::kFlush, .nth = 1});
  go.set_value();
  const Status status = journal->force(sequence);
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().code == Errc::kIo);
  forcer.join();
  // By now the context looks empty, and all sequences before it are stable.
  CHECK_FALSE(journal->force(sequence).ok());
  CHECK_FALSE(journal->force_all().ok());
  world.disk.on_io(nullptr);
  const Status closed = journal->close();
  REQUIRE_FALSE(closed.ok());
  CHECK(closed.error().code == Errc::kIo);
  CHECK_FALSE(journal->close().ok());
  CHECK(trace.count(Call::kAbort) >= 1);
}

TEST_CASE("a checkpoint of many writes stops at the one that fails") {
  for (std::uint64_t nth = 1; nth <= 3; ++nth) {
    CAPTURE(nth);
    LogWorld world({.size = Bytes(64U << 20)});
    Trace trace;
    Probe item(trace, 1);
    item.regions.assign(12, std::string(1U << 20, 'x'));
    // One write after the other: nothing that was started earlier is still under way.
    auto journal = world.open({.push_threshold = Bytes(1U << 30), .io_mode = IoMode::kSync});
    // Before the commit: a context of this size is pushed without being asked for.
    world.disk.clear_io_log();
    world.disk.inject({.op = SimOp::kWrite, .nth = nth});
    const Sequence sequence = commit(*journal, {&item}, std::size_t{12} << 20);
    const Status forced = journal->force(sequence);
    REQUIRE_FALSE(forced.ok());
    CHECK(forced.error().code == Errc::kIo);
    CHECK_FALSE(journal->close().ok());
    const std::vector<SimIo> log = world.disk.io_log();
    CHECK(log.size() == nth);
    CHECK(log.back().faulty);
    CHECK_FALSE(item.pinned());
  }
}

TEST_CASE("a commit that a shutdown overtakes joins nothing") {
  LogWorld world;
  Trace trace;
  Probe first(trace, 1), second(trace, 2);
  first.regions = second.regions = {"x"};
  auto journal = world.open();
  world.disk.inject({.op = SimOp::kWrite, .for_good = true});
  commit(*journal, {&first});
  auto transaction = journal->begin(100, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(second).ok());
  // By now commit() has looked for an error once.
  second.during_size = [&] {
    CHECK_FALSE(journal->force_all().ok());
    while (first.pinned()) {
      std::this_thread::yield();
    }
    CHECK(first.aborted());
  };
  const auto committed = transaction->commit();
  REQUIRE_FALSE(committed.ok());
  CHECK(committed.error().code == Errc::kIo);
  CHECK_FALSE(second.pinned());
  CHECK(trace.count(Call::kFormat) == 1);
  CHECK(journal->stats().log_reserved == Bytes(0));
  CHECK_FALSE(journal->close().ok());
}

TEST_CASE("a thread that waits for log space gets the error of the shutdown") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < 16; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {std::string(60000, 'x')};
  }
  auto journal = world.open();
  for (std::size_t i = 0; i < 14; ++i) {
    REQUIRE(journal->force(commit(*journal, {items[i].get()}, 60000)).ok());
  }
  // There is room for one more, not for two, and none comes back.
  auto transaction = journal->begin(60000, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(*items[15]).ok());
  Status waited;
  std::thread waiter([&] {
    const auto second = journal->begin(60000, 1);
    waited = second ? Status() : Status(second.error());
  });
  // Should the thread come too late to wait, it finds the error at once.
  let_others_run();
  world.disk.inject({.op = SimOp::kWrite, .for_good = true});
  const auto sequence = transaction->commit();
  REQUIRE(sequence.ok());
  CHECK_FALSE(journal->force(*sequence).ok());
  waiter.join();
  REQUIRE_FALSE(waited.ok());
  CHECK(waited.error().code == Errc::kIo);
  CHECK_FALSE(journal->close().ok());
}

TEST_CASE(
    "a read that fails makes open fail with kIo, changing nothing, or a twin makes up for it") {
  LogWorld world;
  Trace trace;
  auto items = make_items(trace);
  auto journal = world.open();
  const Outcome outcome = work(*journal, items);
  CHECK(outcome.first_error.ok());
  journal.reset();
  const Found expected = world.read();
  std::uint64_t nth = 1, refused = 0;
  for (bool met = true; met; ++nth) {
    CAPTURE(nth);
    const SimContent before = world.disk.image(kLogPath);
    world.disk.clear_io_log();
    world.disk.inject({.op = SimOp::kRead, .nth = nth});
    Found found;
    const auto opened = Journal::open(kLogPath, {}, collect_into(found));
    world.disk.clear_faults();
    const std::vector<SimIo> log = world.disk.io_log();
    met = std::any_of(log.begin(), log.end(), [](const SimIo& io) { return io.faulty; });
    if (opened.ok()) {
      CHECK(found == expected);
    } else {
      ++refused;
      CHECK(opened.error().code == Errc::kIo);
      CHECK(world.disk.image(kLogPath) == before);
    }
  }
  CHECK(nth > 5);
  CHECK(refused > 0);
  (void)world.open();
  CHECK(world.found == expected);
}

TEST_CASE("short reads are read on, bits that flip on the way are never delivered") {
  LogWorld world;
  Trace trace;
  auto items = make_items(trace);
  auto journal = world.open();
  CHECK(work(*journal, items).first_error.ok());
  journal.reset();
  const Found expected = world.read();
  for (std::uint64_t nth = 1; nth < 8; ++nth) {
    world.disk.inject(
        {.op = SimOp::kRead, .nth = nth, .effect = SimFault::Effect::kShort, .bytes = 4096});
    CHECK(world.read() == expected);
    world.disk.clear_faults();
  }
  for (std::uint64_t nth = 1; nth < 8; ++nth) {
    for (std::uint64_t bit = 1; bit < 8U << 20; bit = bit * 3 + 5) {
      world.disk.inject(
          {.op = SimOp::kRead, .nth = nth, .effect = SimFault::Effect::kFlipBit, .bit = bit});
      Found found;
      const auto report = scan_log(kLogPath, collect_into(found));
      world.disk.clear_faults();
      if (report.ok() && report->end != LogEnd::kDamaged) {
        CHECK(found == expected);
      }
      REQUIRE(found.size() <= expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        CHECK(found[i] == expected[i]);
      }
    }
  }
}

TEST_CASE(
    "a large checkpoint fails with whichever of its writes and its flush, however it is made") {
  for (const IoMode mode : {IoMode::kSync, IoMode::kUring}) {
    for (const SimOp op : {SimOp::kWrite, SimOp::kFlush}) {
      std::uint64_t failures = 0;
      for (bool fired = true; fired; failures += fired ? 1 : 0) {
        CAPTURE(failures);
        LogWorld world({.size = Bytes(32U << 20)});
        Trace trace;
        Probe item(trace, 1);
        item.regions.assign(8, std::string(400'000, 'x'));
        auto journal = world.open({.push_threshold = Bytes(1U << 30), .io_mode = mode});
        world.disk.clear_io_log();
        world.disk.inject({.op = op, .nth = failures + 1, .error = EREMOTEIO});
        const Status forced = journal->force(commit(*journal, {&item}, 3'300'000));
        fired = false;
        for (const SimIo& io : world.disk.io_log()) {
          fired |= io.faulty;
        }
        world.disk.clear_faults();
        CHECK(forced.ok() == !fired);
        if (fired) {
          CHECK(forced.error().sys_errno == EREMOTEIO);
          CHECK_FALSE(journal->close().ok());
          CHECK_FALSE(item.pinned());
        } else {
          finish(journal);
        }
      }
      CHECK(failures >= (op == SimOp::kWrite ? 4 : 1));
    }
  }
}

TEST_CASE("a small checkpoint over the end of the log's data fails with either of its writes") {
  constexpr std::uint64_t kBlock = 4096;
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {
    LogWorld world;
    Trace trace;
    Probe item(trace, 1);
    item.after = Tracking::kRelease;
    item.regions = {std::string(4 * kBlock, 'x')};  // a checkpoint of five blocks
    auto journal = world.open();
    const std::uint64_t data = journal->info().data.value();
    REQUIRE(data % (5 * kBlock) != 0);
    const auto to_end = [&] {
      const JournalStats stats = journal->stats();
      return data - (stats.tail + stats.log_used).value() % data;
    };
    while (to_end() > 4 * kBlock) {
      REQUIRE(journal->force(commit(*journal, {&item}, 20'000)).ok());
    }
    world.disk.inject({.op = SimOp::kWrite, .nth = nth, .error = EREMOTEIO});
    const Status forced = journal->force(commit(*journal, {&item}, 20'000));
    REQUIRE_FALSE(forced.ok());
    CHECK(forced.error().sys_errno == EREMOTEIO);
    CHECK_FALSE(journal->close().ok());
  }
}

TEST_CASE("what cannot be made stable at home ends a journal before its tail moves, also at rest") {
  for (const bool rests : {true, false}) {
    CAPTURE(rests);
    LogWorld world;
    Trace trace;
    Probe item(trace, 1);
    item.after = Tracking::kRelease;
    item.regions = {std::string(30'000, 'x')};
    JournalConfig config;
    config.cover_after_ns = rests ? 1'000'000 : UINT64_MAX;
    config.flush_home = [] { return Error{Errc::kIo, EREMOTEIO, "of the home", 0}; };
    auto journal = world.open(config);
    const Lsn tail = journal->stats().tail;
    Error error{};
    for (int i = 0; error.sys_errno == 0 && journal->stats().tail == tail; ++i) {
      auto transaction = journal->begin(31'000, 1);
      if (!transaction) {
        error = transaction.error();
      } else if (!rests || i == 0) {
        REQUIRE(transaction->log(item).ok());
        const auto sequence = transaction->commit();
        if (sequence) {
          (void)journal->force(*sequence);
        }
      }
      std::this_thread::yield();
    }
    CHECK(error.sys_errno == EREMOTEIO);
    CHECK(journal->stats().tail == tail);
    CHECK(journal->close().error().sys_errno == EREMOTEIO);
  }
}
