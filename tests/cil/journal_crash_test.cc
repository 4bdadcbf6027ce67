// Power cuts at every I/O: crash_lab.h says what is checked.
#include <doctest/doctest.h>

#include <cstdio>

#include "crash_lab.h"
#include "probe.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

void add(CrashTally& sum, const CrashTally& one) {
  sum.states += one.states;
  sum.lives += one.lives;
  sum.moments += one.moments;
  sum.bytes_logged += one.bytes_logged;
  sum.torn += one.torn;
}

// Fewer under sanitizers.
std::uint32_t some(std::uint32_t usual, std::uint32_t sanitized) {
#if defined(KEEL_TEST_SANITIZED)
  (void)usual;
  return sanitized;
#else
  (void)sanitized;
  return usual;
#endif
}

void print(const char* what, const CrashTally& tally) {
  (void)std::printf(
      "%s: %llu crash states (%llu torn) of %llu moments in %llu lives, %llu KiB logged\n", what,
      static_cast<unsigned long long>(tally.states), static_cast<unsigned long long>(tally.torn),
      static_cast<unsigned long long>(tally.moments), static_cast<unsigned long long>(tally.lives),
      static_cast<unsigned long long>(tally.bytes_logged / 1024));
}

}  // namespace

TEST_CASE("a power cut at any I/O loses nothing forced, tears no transaction, reorders nothing") {
  const std::uint64_t seed = test_seed("crash", 1);
  CrashTally tally;
  const std::uint64_t rounds = test_rounds(6, 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    add(tally, run_crash_plan({.seed = seed + round, .transactions = some(400, 150)}));
  }
  print("crash", tally);
}

TEST_CASE("the same with several threads committing") {
  const std::uint64_t seed = test_seed("threaded crash", 101);
  CrashTally tally;
  const std::uint64_t rounds = test_rounds(2, 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    add(tally,
        run_crash_plan({.seed = seed + round, .transactions = some(600, 200), .threads = 4}));
  }
  print("threaded crash", tally);
}

TEST_CASE("the same with objects so large that a checkpoint takes several writes at once") {
  const std::uint64_t seed = test_seed("large crash", 201);
  CrashTally tally;
  const std::uint64_t rounds = test_rounds(2, 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    add(tally, run_crash_plan({.seed = seed + round,
                               .transactions = some(100, 30),
                               .crashes = 3,
                               .children = 1,
                               .log_bytes = std::uint64_t{24} << 20,
                               .large_objects = true,
                               .moment_stride = some(3, 9)}));
  }
  print("large crash", tally);
}

TEST_CASE("the same with several checkpoints in flight at once") {
  const std::uint64_t seed = test_seed("flights crash", 301);
  CrashTally tally;
  const std::uint64_t rounds = test_rounds(3, 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    add(tally, run_crash_plan({.seed = seed + round,
                               .transactions = some(100, 30),
                               .threads = 4,
                               .crashes = 4,
                               .children = 1,
                               .log_bytes = std::uint64_t{24} << 20,
                               .large_objects = true,
                               .in_flight = 2U << round,
                               .push_threshold = 600'000,
                               .moment_stride = some(5, 9)}));
  }
  print("flights crash", tally);
}

TEST_CASE(
    "what recovery delivers stays, though the journal before was killed and never flushed it") {
  LogWorld world({.size = Bytes(16U << 20)});
  Trace trace;
  Probe item(trace, 1);
  // So large that it takes several writes and a flush.
  item.regions = {std::string(1500000, 'd')};
  auto journal = world.open();
  // Its flush fails, which is as good as a kill just before it: written, not stable, not promised.
  world.disk.inject({.op = SimOp::kFlush});
  CHECK_FALSE(journal->force(commit(*journal, {&item}, 1500000)).ok());
  journal.reset();
  world.disk.clear_faults();
  SimSnapshot at_delivery;
  std::size_t delivered = 0;
  journal = [&] {
    auto opened = Journal::open(kLogPath, {}, [&](const RecoveredCheckpoint& checkpoint) -> Status {
      at_delivery = world.disk.snapshot();
      delivered = checkpoint.items.size();
      return {};
    });
    REQUIRE(opened.ok());
    return std::move(*opened);
  }();
  REQUIRE(delivered == 1);
  SimDisk after;
  after.boot_with(at_delivery, [](const SimSector&) { return SimFate::kDrop; });
  const ScopedOs scope(after);
  Found found;
  REQUIRE(scan_log(kLogPath, collect_into(found)).ok());
  CHECK(found == Found{{1, {{17, item.regions}}}});
  // Closed under its own disk, further down the stack.
  const ScopedOs back(world.disk);
  finish(journal);
}

TEST_CASE("opening and closing without a commit survives a power cut at any I/O") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  finish(journal);
  std::vector<SimSnapshot> moments;
  world.disk.on_io([&](const SimIo&) { moments.push_back(world.disk.snapshot()); });
  for (int i = 0; i < 3; ++i) {
    journal = world.open();
    finish(journal);
  }
  world.disk.on_io(nullptr);
  for (const SimSnapshot& moment : moments) {
    for (std::uint64_t seed = 1; seed <= test_rounds(40, 10); ++seed) {
      SimDisk after;
      after.boot(moment, seed);
      const ScopedOs scope(after);
      Found found;
      const auto report = scan_log(kLogPath, collect_into(found));
      REQUIRE(report.ok());
      CHECK(report->end == LogEnd::kClean);
      CHECK(found == Found{{1, {{17, {"x"}}}}});
    }
  }
}

namespace {

// Opens and closes what a crash left, and crashes that at every I/O, `depth` times over.
void open_and_crash(const SimSnapshot& moment, SimFate fate, int depth) {
  SimDisk disk;
  disk.boot_with(moment, [fate](const SimSector&) { return fate; });
  const ScopedOs scope(disk);
  std::vector<SimSnapshot> moments;
  disk.on_io([&](const SimIo&) { moments.push_back(disk.snapshot()); });
  Found found;
  {
    auto journal = Journal::open(kLogPath, {}, collect_into(found));
    if (!journal) {
      FAIL(journal.error().message());
    }
    CHECK((*journal)->recovery().end == LogEnd::kClean);
    REQUIRE((*journal)->close().ok());
  }
  disk.on_io(nullptr);
  REQUIRE(found == Found{{1, {{17, {"x"}}}}});
  for (std::size_t i = 0; depth > 0 && i < moments.size(); ++i) {
    open_and_crash(moments[i], SimFate::kGarbage, depth - 1);
    open_and_crash(moments[i], SimFate::kKeep, depth - 1);
  }
}

}  // namespace

TEST_CASE(
    "crash after crash while opening, each tearing what it can, never costs both state slots") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  REQUIRE(journal->force(commit(*journal, {&item})).ok());
  finish(journal);
  open_and_crash(world.disk.snapshot(), SimFate::kKeep, 2);
}
