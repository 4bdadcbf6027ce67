// Logs of which some block cannot be read: what is kept twice is had from its twin.
#include <doctest/doctest.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "keel/cil/journal.h"
#include "keel/cil/log_file.h"
#include "probe.h"
#include "support/bad_blocks.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kFileBytes = kMinLogBytes.value();
// Where both copies of what is kept twice stand.
constexpr std::uint64_t kSuperblocks[] = {0, kFileBytes - kBlock};
constexpr std::uint64_t kStates[] = {kBlock, kFileBytes - 2 * kBlock};

// A log of six checkpoints on a disk of which blocks go bad. Its journal was killed.
struct World {
  World() {
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    Trace trace;
    std::vector<std::unique_ptr<Probe>> items;
    {
      auto journal = Journal::open(kLogPath, {}, kIgnore);
      REQUIRE(journal.ok());
      for (std::uint32_t i = 1; i <= kCheckpoints; ++i) {
        items.push_back(std::make_unique<Probe>(trace, i));
        items.back()->regions = {"checkpoint " + std::to_string(i)};
        const Sequence sequence = commit(**journal, {items.back().get()});
        CHECK(sequence == Sequence(i));
        REQUIRE((*journal)->force(sequence).ok());
        all.push_back({i, {{16 + i, items.back()->regions}}});
      }
      disk.crash_with([](const SimSector&) { return SimFate::kKeep; });
    }
    Found found;
    const auto report = scan_log(kLogPath, [&](const RecoveredCheckpoint& checkpoint) {
      starts.push_back(checkpoint.start.value());
      return collect_into(found)(checkpoint);
    });
    REQUIRE(report.ok());
    REQUIRE(found == all);
    starts.push_back(report->head.value());
  }

  static constexpr std::uint32_t kCheckpoints = 6;
  BadBlocks disk;
  ScopedOs scope{disk};
  Found all;
  std::vector<std::uint64_t> starts;  // LSNs of the checkpoints, then the end
};

}  // namespace

TEST_CASE("a superblock or state slot that cannot be read is made up for by its twin") {
  for (const std::uint64_t bad : {kSuperblocks[0], kSuperblocks[1], kStates[0], kStates[1]}) {
    CAPTURE(bad);
    World world;
    world.disk.make_bad(bad, kBlock);
    const bool is_state = bad == kStates[0] || bad == kStates[1];
    const auto info = read_log_info(kLogPath);
    REQUIRE(info.ok());
    CHECK(info->valid_superblocks == (is_state ? 2 : 1));
    CHECK(info->valid_states == (is_state ? 1 : 2));
    Found scanned, found;
    CHECK(scan_log(kLogPath, collect_into(scanned)).ok());
    CHECK(scanned == world.all);
    auto journal = Journal::open(kLogPath, {}, collect_into(found));
    REQUIRE(journal.ok());
    CHECK(found == world.all);
    CHECK((*journal)->info().valid_superblocks == (is_state ? 2 : 1));
    CHECK((*journal)->close().ok());
    journal->reset();
    world.disk.mend();
    const auto after = read_log_info(kLogPath);
    REQUIRE(after.ok());
    CHECK(after->valid_superblocks == 2);
    CHECK(after->valid_states == 2);  // the opening has written both
  }
}

TEST_CASE("of two copies none of which can be read the error is told") {
  for (const auto& both : {kSuperblocks, kStates}) {
    World world;
    world.disk.make_bad(both[0], kBlock);
    world.disk.make_bad(both[1], kBlock);
    const auto info = read_log_info(kLogPath);
    REQUIRE_FALSE(info.ok());
    CHECK(info.error().code == Errc::kIo);
    CHECK(info.error().sys_errno == EIO);
    CHECK(info.error().value == both[0]);
    world.disk.mend();
    CHECK(read_log_info(kLogPath).ok());
  }
}

TEST_CASE("a log is not made of which a superblock or state slot cannot be read back") {
  for (const std::uint64_t bad : {kSuperblocks[0], kSuperblocks[1], kStates[0], kStates[1]}) {
    BadBlocks disk;
    const ScopedOs scope(disk);
    disk.make_bad(bad, kBlock);
    const auto made = create_log(kLogPath, {.size = kMinLogBytes});
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kIo);
    CHECK_FALSE(disk.exists(kLogPath));
  }
}
