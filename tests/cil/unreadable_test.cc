// Logs of which some block cannot be read: what is kept twice is had from its twin, and salvage has
// what stands before it.
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

// A log of six checkpoints on a disk of which blocks go bad, the last of so many bytes more. Its
// journal was killed.
struct World {
  explicit World(std::size_t last_bytes = 0) {
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    Trace trace;
    std::vector<std::unique_ptr<Probe>> items;
    {
      auto journal = Journal::open(kLogPath, {}, kIgnore);
      REQUIRE(journal.ok());
      for (std::uint32_t i = 1; i <= kCheckpoints; ++i) {
        items.push_back(std::make_unique<Probe>(trace, i));
        items.back()->regions = {"checkpoint " + std::to_string(i) +
                                 std::string(i == kCheckpoints ? last_bytes : 0, 'x')};
        const Sequence sequence = commit(**journal, {items.back().get()}, 1000 + last_bytes);
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
    CHECK((*journal)->info().valid_states == 2);  // the opening has written both
    CHECK((*journal)->close().ok());
    journal->reset();
    world.disk.mend();
    const auto after = read_log_info(kLogPath);
    REQUIRE(after.ok());
    CHECK(after->valid_superblocks == 2);
    CHECK(after->valid_states == 2);
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

TEST_CASE("salvage of a log of which a block cannot be read keeps all that stands before it") {
  const std::uint64_t head = World().starts.back();
  const std::uint64_t fourth = World().starts[3];
  struct Case {
    std::uint64_t lsn;
    int error;
    std::size_t kept;
    bool is_damage;
  };
  for (const Case& one :
       {Case{fourth, EIO, 3, true}, Case{fourth, ENODATA, 3, true},
        Case{head, EIO, World::kCheckpoints, true}, Case{head, ENODATA, World::kCheckpoints, true},
        Case{head + kBlock, EIO, World::kCheckpoints, false}}) {
    CAPTURE(one.lsn);
    CAPTURE(one.error);
    World world;
    world.disk.error = one.error;
    world.disk.make_bad(2 * kBlock + one.lsn, kBlock);
    const auto refused = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == Errc::kIo);
    CHECK_FALSE(scan_log(kLogPath, kIgnore).ok());
    Found kept(world.all.begin(), world.all.begin() + static_cast<std::ptrdiff_t>(one.kept));
    Found scanned, found;
    const auto report = scan_log(kLogPath, collect_into(scanned), {.salvage = true});
    REQUIRE(report.ok());
    CHECK(scanned == kept);
    CHECK(report->end == (one.is_damage ? LogEnd::kDamaged : LogEnd::kClean));
    const auto says = [line = report->message()](const char* text) {
      return line.find(text) != std::string::npos;
    };
    CHECK(says("lost for sure") == (one.kept < World::kCheckpoints));
    CHECK(says("nothing is known to be lost") ==
          (one.is_damage && one.kept == World::kCheckpoints));
    if (one.kept < World::kCheckpoints) {  // what stands behind it still tells
      CHECK(report->stable_sequence == Sequence(World::kCheckpoints - 1));
      CHECK(report->newest_sequence == Sequence(World::kCheckpoints));
    }
    auto opened = Journal::open(kLogPath, {.salvage = true}, collect_into(found));
    REQUIRE(opened.ok());
    CHECK(found == kept);
    Trace trace;
    Probe item(trace, 9);
    item.regions = {std::string(20000, 'n')};
    REQUIRE((*opened)->force(commit(**opened, {&item}, 30000)).ok());
    REQUIRE((*opened)->close().ok());
    opened->reset();
    world.disk.mend();  // as what is written over is
    kept.push_back({one.kept + 1, {{16 + 9, item.regions}}});
    Found after;
    REQUIRE(scan_log(kLogPath, collect_into(after)).ok());
    CHECK(after == kept);
  }
}

TEST_CASE("a record of which a block cannot be read is no witness of what salvage has lost") {
  World world(20'000);
  world.disk.make_bad(2 * kBlock + world.starts[3], kBlock);
  world.disk.make_bad(2 * kBlock + world.starts[5] + 2 * kBlock, kBlock);
  Found found;
  const auto report = scan_log(kLogPath, collect_into(found), {.salvage = true});
  REQUIRE(report.ok());
  CHECK(found == Found(world.all.begin(), world.all.begin() + 3));
  CHECK(report->newest_sequence == Sequence(5));
}

TEST_CASE("salvage goes on past what cannot be read, and past no other error") {
  {
    World world;
    world.disk.error = ENOMEM;
    world.disk.make_bad(2 * kBlock + world.starts[3], kBlock);
    const auto report = scan_log(kLogPath, kIgnore, {.salvage = true});
    REQUIRE_FALSE(report.ok());
    CHECK(report.error().code == Errc::kNoMemory);
  }
  for (const std::uint64_t last_bytes : {0U, 20'000U}) {  // in the search for witnesses
    CAPTURE(last_bytes);
    World world(last_bytes);
    SimContent image = world.disk.image(kLogPath);
    image[2 * kBlock + world.starts[3] + 100] ^= std::byte{1};
    world.disk.set_image(kLogPath, image);
    world.disk.error = ENOMEM;
    world.disk.make_bad(2 * kBlock + world.starts[5] + (last_bytes == 0 ? 0 : 2 * kBlock), kBlock);
    const auto report = scan_log(kLogPath, kIgnore, {.salvage = true});
    REQUIRE_FALSE(report.ok());
    CHECK(report.error().code == Errc::kNoMemory);
  }
}
