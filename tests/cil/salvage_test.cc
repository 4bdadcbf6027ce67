// What the report tells of a torn and of a damaged log, and that a salvaged log is usable at once.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "log/format.h"
#include "log/hash.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kData = 2 * 4096;

// Six checkpoints of one item each, forced one by one, as a kill leaves them.
struct KilledSix {
  KilledSix() {
    auto journal = world.open();
    for (std::uint32_t i = 0; i < 6; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {random_bytes(i, 20000)};
      starts.push_back(journal->stats().log_used.value());
      REQUIRE(journal->force(commit(*journal, {items.back().get()}, 30000)).ok());
    }
    starts.push_back(journal->stats().log_used.value());
    image = world.disk.image(kLogPath);
    finish(journal);
    world.disk.set_image(kLogPath, image);
  }

  void rot(std::size_t checkpoint) {
    world.disk.flip_bit(kLogPath, kData + starts[checkpoint] + 200, 3);
  }

  // Says that all below `stable` was stable; its hash is right.
  void forge_stable(std::size_t checkpoint, std::uint64_t stable) {
    std::byte* const record = image.data() + kData + starts[checkpoint];
    format::RecordHeader header;
    std::memcpy(&header, record, sizeof header);
    REQUIRE(header.record_count == 1);
    header.stable_lsn = stable;
    header.record_hash = 0;
    std::memcpy(record, &header, sizeof header);
    header.record_hash = hash64(record, starts[checkpoint + 1] - starts[checkpoint]);
    std::memcpy(record, &header, sizeof header);
    world.disk.set_image(kLogPath, image);
  }

  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  std::vector<std::uint64_t> starts;  // LSNs, then the end
  SimContent image;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the report of damage names what is lost for sure, and what is known beyond it") {
  KilledSix log;
  log.rot(2);
  Found found;
  const RecoveryReport report = log.world.scan(found);
  CHECK(found.size() == 2);
  CHECK(report.end == LogEnd::kDamaged);
  CHECK(report.last_sequence == Sequence(2));
  CHECK(report.first_missing == Sequence(3));
  CHECK(report.head.value() == log.starts[2]);
  CHECK(report.stable.value() == log.starts[5]);
  CHECK(report.stable_sequence == Sequence(5));
  CHECK(report.newest_sequence == Sequence(6));
  CHECK(report.in_flight == 1);
  const std::string text = report.message();
  CHECK(contains(text, "damaged end at LSN " + std::to_string(log.starts[2])));
  CHECK(contains(text, "lost for sure: what was stable from LSN " + std::to_string(log.starts[2]) +
                           " to " + std::to_string(log.starts[5]) + ", checkpoints 3 to 5"));
  CHECK_FALSE(contains(text, "\n"));
}

TEST_CASE("a checkpoint vouches for what is before it and for nothing else") {
  for (const std::uint64_t stable : {std::uint64_t{1} << 40, UINT64_MAX - 1}) {
    KilledSix log;
    log.forge_stable(4, stable);
    Found found;
    RecoveryReport report = log.world.scan(found);
    CHECK(report.end == LogEnd::kClean);
    CHECK(report.stable.value() == log.starts[5]);
    CHECK(found.size() == 6);
    // The one that says so is the last that is delivered.
    log.rot(5);
    report = log.world.scan(found);
    CHECK(report.end == LogEnd::kClean);
    CHECK(report.stable.value() == log.starts[4]);
    auto journal = log.world.open();
    finish(journal);
    found.clear();
    CHECK(log.world.scan(found).end == LogEnd::kClean);
    CHECK(found.size() == 5);
  }
}

TEST_CASE("the report of a torn end names the checkpoint that is missing and what was stable") {
  LogWorld world({.size = Bytes(16U << 20)});
  Trace trace;
  Probe small(trace, 1), large(trace, 2);
  small.regions = {"small"};
  large.regions = {random_bytes(1, 3U << 20)};
  SimContent image;
  std::uint64_t start = 0, end = 0;
  {
    auto journal = world.open();
    REQUIRE(journal->force(commit(*journal, {&small}, 1000)).ok());
    start = journal->stats().log_used.value();
    REQUIRE(journal->force(commit(*journal, {&large}, (3U << 20) + 1000)).ok());
    end = journal->stats().log_used.value();
    image = world.disk.image(kLogPath);
    finish(journal);
  }
  // The second checkpoint's last record did not reach the disk.
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(kData + end - 4096), 4096, std::byte{0});
  world.disk.set_image(kLogPath, image);
  Found found;
  const RecoveryReport report = world.scan(found);
  CHECK(report.end == LogEnd::kTorn);
  CHECK(report.head.value() == start);
  CHECK(report.first_missing == Sequence(2));
  CHECK(report.stable.value() == start);
  CHECK(report.stable_sequence == Sequence(1));
  CHECK(report.newest_sequence == Sequence(2));
  CHECK(report.in_flight == 1);
  const std::string text = report.message();
  CHECK(contains(text, "checkpoint 2 is incomplete and was not known to be stable"));
  CHECK(contains(text, "stable up to LSN " + std::to_string(start) + ", sequence 1; 1 in flight"));
}

TEST_CASE("a salvaged log is usable at once: written, reopened, written and reopened again") {
  KilledSix log;
  log.rot(2);
  const auto refused = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == Errc::kDamaged);
  std::vector<std::unique_ptr<Probe>> more;
  Found expected;
  for (std::uint64_t round = 0; round < 3; ++round) {
    auto journal = log.world.open({.salvage = round == 0});
    if (round == 0) {
      CHECK(log.world.found.size() == 2);
      CHECK(journal->recovery().first_missing == Sequence(3));
      expected = log.world.found;
    }
    CHECK(log.world.found == expected);
    CHECK((journal->recovery().end == LogEnd::kDamaged) == (round == 0));
    for (int i = 0; i < 2; ++i) {
      more.push_back(std::make_unique<Probe>(log.trace, 20U + static_cast<std::uint32_t>(i)));
      more.back()->regions = {random_bytes(100 + more.size(), 20000)};
      const Sequence sequence = commit(*journal, {more.back().get()}, 30000);
      REQUIRE(journal->force(sequence).ok());
      expected.push_back(
          {sequence.value(), {{36U + static_cast<std::uint32_t>(i), more.back()->regions}}});
    }
    // The second life ends without being closed.
    const SimContent killed = log.world.disk.image(kLogPath);
    finish(journal);
    if (round == 1) {
      log.world.disk.set_image(kLogPath, killed);
    }
  }
  CHECK(log.world.read() == expected);
}
