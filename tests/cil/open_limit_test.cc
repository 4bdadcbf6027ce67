// A log whose sequences, LSNs or generations are close to where a state slot may not go: it is
// read, but never opened, since the journal's own writes could make both slots invalid.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "log/geometry.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;

using Change = std::function<void(format::StateSlot&, std::uint64_t farthest)>;

// What a state slot counts, each at `farthest`.
const std::vector<Change>& counts() {
  static const std::vector<Change> changes{
      [](format::StateSlot& state, std::uint64_t farthest) { state.generation = farthest; },
      [](format::StateSlot& state, std::uint64_t farthest) {
        state.tail_predecessor.sequence = farthest;
      },
      [](format::StateSlot& state, std::uint64_t farthest) {
        state.tail_lsn = state.stable_lsn = farthest / kBlock * kBlock;
        state.incarnation_start_lsn = state.stable_lsn;
      }};
  return changes;
}

// In both slots of the log, which holds nothing.
void put(SimDisk& disk, const Change& change, std::uint64_t farthest) {
  SimContent image = disk.image(kLogPath);
  for (const std::size_t slot : {kBlock, image.size() - 2 * kBlock}) {
    format::StateSlot state;
    std::memcpy(&state, image.data() + slot, sizeof state);
    change(state, farthest);
    encode(state, image.data() + slot);
  }
  disk.set_image(kLogPath, image);
}

// Refused and unchanged, salvaged or not; and readable.
void check_is_read_only(LogWorld& world, const Found& expected) {
  const SimContent before = world.disk.image(kLogPath);
  for (const bool salvage : {false, true}) {
    const auto journal = Journal::open(kLogPath, {.salvage = salvage}, kIgnore);
    REQUIRE_FALSE(journal.ok());
    CHECK(journal.error().code == Errc::kDamaged);
    CHECK(journal.error().value >= format::kOpenLimit);
    CHECK(world.disk.image(kLogPath) == before);
  }
  Found found;
  CHECK(world.scan(found).end == LogEnd::kClean);
  CHECK(found == expected);
}

}  // namespace

TEST_CASE("a log that has counted too far is refused and stays readable") {
  for (const Change& change : counts()) {
    for (const std::uint64_t farthest : {format::kOpenLimit, format::kCountLimit - 1}) {
      LogWorld world;
      put(world.disk, change, farthest);
      check_is_read_only(world, {});
    }
  }
}

TEST_CASE("a log that may just be opened is readable when it is closed") {
  for (const Change& change : counts()) {
    LogWorld world;
    put(world.disk, change, format::kOpenLimit - 1);
    Trace trace;
    Probe item(trace, 1);
    item.regions = {"kept"};
    auto journal = world.open();
    const Sequence sequence = commit(*journal, {&item});
    REQUIRE(journal->force(sequence).ok());
    finish(journal);
    check_is_read_only(world, {{sequence.value(), {{17, {"kept"}}}}});
  }
}
