// A journal at rest records where its log ends.
#include <doctest/doctest.h>

#include <memory>

#include "gate.h"
#include "probe.h"

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
    before = (journal->stats().tail + journal->stats().log_used).value();
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
