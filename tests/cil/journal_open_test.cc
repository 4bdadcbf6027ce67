// What a journal is after open(): which incarnation, and what became of its wishes.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <string>

#include "probe.h"
#include "support/death.h"

using namespace keel;
using namespace keel_test;

namespace {

// A disk whose random numbers are given, and that may be refused to lock memory.
class ScriptedDisk : public SimDisk {
 public:
  std::deque<std::uint64_t> dice;
  int lock_error = 0;

  std::uint64_t random64() override {
    if (dice.empty()) {
      return SimDisk::random64();
    }
    const std::uint64_t drawn = dice.front();
    dice.pop_front();
    return drawn;
  }
  int mlockall(int) override { return -lock_error; }
  int set_io_flusher() override { return -lock_error; }
};

std::unique_ptr<Journal> open_log(const JournalConfig& config = {}) {
  auto journal = Journal::open(kLogPath, config, kIgnore);
  if (!journal) {
    FAIL(journal.error().message());
  }
  return std::move(*journal);
}

}  // namespace

TEST_CASE("an incarnation is never 0, nor the one before, whatever is drawn") {
  ScriptedDisk disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  auto journal = open_log();
  const std::uint64_t first = journal->info().incarnation;
  CHECK(first != 0);
  finish(journal);
  disk.dice = {0, first, 0, first, 77};
  journal = open_log();
  CHECK(journal->info().incarnation == 77);
  CHECK(disk.dice.empty());
  finish(journal);
}

TEST_CASE("a journal that may not lock memory works without, and says so") {
  for (const int error : {0, EPERM}) {
    ScriptedDisk disk;
    const ScopedOs scope(disk);
    disk.lock_error = error;
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    for (const bool wanted : {true, false}) {
      auto journal = open_log({.lock_memory = wanted});
      Trace trace;
      Probe item(trace, 1);
      item.regions = {"x"};
      CHECK(journal->force(commit(*journal, {&item})).ok());
      REQUIRE(journal->close().ok());  // its threads have begun by then
      CHECK(journal->facts().memory_locked == (wanted && error == 0));
      CHECK(journal->facts().io_flusher == (wanted && error == 0));
      finish(journal);
    }
  }
}

TEST_CASE("a journal that tries harder for contiguous snapshots writes the same log") {
  Found logs[2];
  for (const bool harder : {false, true}) {
    LogWorld world;
    Trace trace;
    Probe item(trace, 1);
    item.regions = {"small", std::string(70'000, 'l')};
    auto journal = world.open({.retry_contiguous = harder});
    REQUIRE(journal->force(commit(*journal, {&item}, 80'000)).ok());
    finish(journal);
    logs[harder ? 1 : 0] = world.read();
  }
  CHECK(logs[0].size() == 1);
  CHECK(logs[0] == logs[1]);
}

TEST_CASE("a forked child may ask its parent's journal for nothing to be told") {
  LogWorld world;
  auto journal = world.open();
  const Ending ending = run_in_child([&] {
    bool called = false;
    const Status refused = journal->on_stable(Sequence(0), [&](const Status&) { called = true; });
    ::_exit(!refused && refused.error().code == Errc::kForked && !called ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  finish(journal);
}
