// A journal at rest records where its log ends, whatever gathers in it unforced.
#include <doctest/doctest.h>

#include <memory>

#include "probe.h"
#include "sim_start.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kSoonNs = 2'000'000;

// Until the state slots say that everything up to the head is stable.
void wait_for_cover(const Journal& journal) {
  yield_until([&] {
    const JournalStats stats = journal.stats();
    return journal.info().stable == stats.tail + stats.log_used;
  });
}

}  // namespace

TEST_CASE("a journal that rests after commits records its head, rot below it is then damage") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"newest"};
  auto journal = world.open({.cover_after_ns = kSoonNs});
  std::uint64_t before = 0;
  // More than one rest, since each begins with commits after the last.
  for (int i = 0; i < 3; ++i) {
    const JournalStats stats = journal->stats();  // of one moment: the tail may still move
    before = (stats.tail + stats.log_used).value();
    REQUIRE(journal->force(commit(*journal, {&item})).ok());
    wait_for_cover(*journal);
  }
  // The journal is not closed in order: as a kill leaves it.
  const SimSnapshot killed = world.disk.snapshot();
  finish(journal);
  SimDisk after;
  after.boot_with(killed, [](const SimSector&) { return SimFate::kDrop; });
  const ScopedOs scope(after);
  Found found;
  const auto whole = scan_log(kLogPath, collect_into(found));
  REQUIRE(whole.ok());
  CHECK(whole->end == LogEnd::kClean);
  CHECK(whole->last_sequence == Sequence(3));
  const auto info = read_log_info(kLogPath);
  REQUIRE(info.ok());
  const std::uint64_t data_start = (info->file - info->data).value() / 2;
  after.flip_bit(kLogPath, data_start + before + 100, 3);
  found.clear();
  const auto rotten = scan_log(kLogPath, collect_into(found));
  REQUIRE(rotten.ok());
  CHECK(rotten->end == LogEnd::kDamaged);
}

TEST_CASE("after a rest with everything home a reopening replays nothing, and commits go on") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open({.cover_after_ns = kSoonNs});
  for (int i = 0; i < 3; ++i) {
    REQUIRE(journal->force(commit(*journal, {&item})).ok());
  }
  REQUIRE(journal->release(item));
  yield_until([&] {
    return journal->info().tail == journal->info().stable && journal->stats().log_used == Bytes(0);
  });
  const SimSnapshot killed = world.disk.snapshot();
  item.regions = {"y"};
  CHECK(journal->force(commit(*journal, {&item})).ok());
  journal->audit();
  finish(journal);
  CHECK(world.read() == Found{{4, {{17, {"y"}}}}});
  SimDisk after;
  after.boot_with(killed, [](const SimSector&) { return SimFate::kDrop; });
  const ScopedOs scope(after);
  Found found;
  const auto report = scan_log(kLogPath, collect_into(found));
  REQUIRE(report.ok());
  CHECK(report->end == LogEnd::kClean);
  CHECK(report->last_sequence == Sequence(3));
  CHECK(found.empty());
}

#if defined(KEEL_DEBUG)

namespace {

constexpr std::uint64_t kRestNs = 1'000'000'000;

// By a simulated clock, where no wait ends but by its time: one that does begins a rest anew.
struct RestingJournal : ClockedJournal {
  RestingJournal() : ClockedJournal({.spurious_one_in = 0}, config()) {
    forced.regions = {"forced"};
    KEEL_CHECK(journal->force(commit(*journal, {&forced})).ok(), "force");
    end = journal->stats().tail + journal->stats().log_used;
  }
  [[nodiscard]] static JournalConfig config() {
    JournalConfig config;
    config.cover_after_ns = kRestNs;
    config.stall_after_ns = UINT64_MAX;
    return config;
  }
  // What was forced is vouched for.
  [[nodiscard]] bool covered() const { return journal->info().stable == end; }
  // Commits the item twice in each rest, for ten rests.
  void keep_committing(LogItem& item) {
    for (int i = 0; i < 20; ++i) {
      (void)commit(*journal, {&item});
      disk.sleep_ns(kRestNs / 2);
    }
  }
  ~RestingJournal() { finish(journal); }

  Trace trace;
  Probe forced{trace, 1};
  Probe gathering{trace, 2};
  Lsn end{};
};

}  // namespace

TEST_CASE("a journal that rests beside a commit that nobody forces vouches for what was forced") {
  RestingJournal world;
  world.gathering.regions = {"unforced"};
  (void)commit(*world.journal, {&world.gathering});
  CHECK_FALSE(world.covered());
  world.disk.sleep_ns(3 * kRestNs);
  CHECK(world.covered());
  // And once is enough.
  const std::uint64_t flushes = world.journal->stats().flushes;
  world.disk.sleep_ns(20 * kRestNs);
  CHECK(world.journal->stats().flushes == flushes);
}

TEST_CASE("a journal to which commits come, forced or not, does not rest") {
  RestingJournal world;
  world.gathering.regions = {"unforced"};
  world.keep_committing(world.gathering);
  CHECK_FALSE(world.covered());
  world.disk.sleep_ns(3 * kRestNs);
  CHECK(world.covered());
}

TEST_CASE("commits of nothing do not keep a journal from resting") {
  RestingJournal world;
  world.keep_committing(world.gathering);
  CHECK(world.covered());
}

#endif
