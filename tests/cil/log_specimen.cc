#include "log_specimen.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <thread>

#include "log/log_scan.h"

using namespace keel;

namespace keel_test {
namespace {

// What checkpoint `i` of a specimen logs, in turn: a block, several regions, two records, bulk
// blocks, a bulk of whole blocks alone.
std::vector<std::string> regions_of(std::uint64_t i, bool small_only) {
  const std::uint64_t seed = i * 1000;
  switch (small_only ? 0 : i % 6) {
    case 1: return {random_bytes(seed, 700), random_bytes(seed + 1, 1), random_bytes(seed + 2, 0)};
    case 2: {
      std::vector<std::string> many;
      for (std::uint64_t r = 0; r < 20; ++r) {
        many.push_back(random_bytes(seed + r, 3900));
      }
      return many;
    }
    case 3: return {random_bytes(seed, 3 * 4096 + 100), random_bytes(seed + 1, 50)};
    case 4: return {random_bytes(seed, 2 * 4096)};
    default: return {random_bytes(seed, 300 + i % 7 * 500)};
  }
}

std::size_t bytes_of(const std::vector<std::string>& regions) {
  std::size_t bytes = 0;
  for (const std::string& region : regions) {
    bytes += region.size() + 15;
  }
  return bytes;
}

void log_one(Journal& journal, Probe& item) {
  REQUIRE(journal.force(commit(journal, {&item}, bytes_of(item.regions))).ok());
}

void rest(Journal& journal) {
  for (;;) {
    const JournalStats stats = journal.stats();  // of one moment: the tail may still move
    if (journal.info().stable >= stats.tail + stats.log_used) {
      return;
    }
    std::this_thread::yield();
  }
}

// Compares as it comes; nothing is copied.
bool is_checkpoint(const RecoveredCheckpoint& got, const FoundCheckpoint& expected) {
  if (got.sequence.value() != expected.sequence || got.items.size() != expected.items.size()) {
    return false;
  }
  for (std::size_t i = 0; i < got.items.size(); ++i) {
    const auto regions = got.items[i].regions();
    const FoundItem& item = expected.items[i];
    if (got.items[i].type() != item.type || regions.size() != item.regions.size()) {
      return false;
    }
    for (std::size_t r = 0; r < regions.size(); ++r) {
      const std::string& bytes = item.regions[r];
      const auto same = [&](std::span<const std::byte> part, std::size_t at) {
        return part.empty() || std::memcmp(part.data(), bytes.data() + at, part.size()) == 0;
      };
      if (regions[r].size_bytes() != bytes.size() || !same(regions[r].bulk, 0) ||
          !same(regions[r].rest, regions[r].bulk.size())) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

LogSpecimen make_specimen(const SpecimenPlan& plan) {
  LogSpecimen specimen;
  specimen.ending = plan.ending;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  LogWorld world({.size = plan.file_bytes});
  auto journal = world.open(
      {.cover_after_ns = plan.ending == LogEnding::kCovered ? 1'000'000 : UINT64_MAX / 4});
  std::uint64_t number = 0;
  while (journal->stats().tail.value() < plan.skip_bytes) {
    Probe passing(trace, 1);
    passing.regions = regions_of(++number, plan.small_only);
    passing.after = Tracking::kRelease;
    log_one(*journal, passing);
  }
  std::uint64_t used = 0;
  do {
    items.push_back(std::make_unique<Probe>(trace, static_cast<std::uint32_t>(number % 50)));
    items.back()->regions = regions_of(++number, plan.small_only);
    log_one(*journal, *items.back());
    used = journal->stats().log_used.value();
  } while (used < plan.live_bytes);
  // The last one has two records.
  items.push_back(std::make_unique<Probe>(trace, 60));
  items.back()->regions = regions_of(2, false);
  log_one(*journal, *items.back());
  if (plan.ending == LogEnding::kCovered) {
    rest(*journal);
  }
  specimen.image = world.disk.image(kLogPath);
  finish(journal);
  if (plan.ending == LogEnding::kClosed) {
    specimen.image = world.disk.image(kLogPath);
  }
  world.disk.set_image(kLogPath, specimen.image);
  const RecoveryHandler collect = collect_into(specimen.checkpoints);
  const auto report = scan_log(kLogPath, [&](const RecoveredCheckpoint& checkpoint) {
    specimen.starts.push_back(checkpoint.start.value());
    return collect(checkpoint);
  });
  REQUIRE(report.ok());
  REQUIRE(report->end == LogEnd::kClean);
  specimen.starts.push_back(report->head.value());
  REQUIRE(specimen.checkpoints.size() >= items.size());
  return specimen;
}

std::size_t LogSpecimen::checkpoint_at(std::size_t offset) const {
  const std::uint64_t data = data_bytes();
  if (offset < 2 * kBlock || offset >= 2 * kBlock + data) {
    return checkpoints.size();
  }
  // Bytes beyond the tail, once round.
  const std::uint64_t place = offset - 2 * kBlock;
  const std::uint64_t lsn = starts[0] + (place + data - starts[0] % data) % data;
  const auto after = std::upper_bound(starts.begin(), starts.end(), lsn);
  return after == starts.end() ? checkpoints.size()
                               : static_cast<std::size_t>(after - starts.begin()) - 1;
}

bool LogSpecimen::is_kept_twice(std::size_t offset) const {
  const std::size_t end = image.size();
  const auto within = [&](std::size_t from, std::size_t bytes) {
    return offset >= from && offset < from + bytes;
  };
  return within(0, 80) || within(end - kBlock, 80) || within(kBlock, 120) ||
         within(end - 2 * kBlock, 120);
}

Judgement judge(const ImageOs& os, const LogSpecimen& specimen, const ReadAheadOptions& reading) {
  Judgement judgement;
  const std::uint64_t forbidden = os.forbidden();
  const auto file = LogFile::open(ImageOs::kPath, DeviceMode::kReadOnly, false, default_pool());
  if (!file) {
    judgement.error = file.error();
  } else {
    const RecoveryHandler compare = [&](const RecoveredCheckpoint& checkpoint) -> Status {
      const std::size_t index = judgement.delivered++;
      if (index >= specimen.checkpoints.size()) {
        judgement.fault = "a checkpoint that was never there was delivered";
      } else if (!is_checkpoint(checkpoint, specimen.checkpoints[index])) {
        judgement.fault = "wrong content was delivered as checkpoint " + std::to_string(index);
      }
      return {};
    };
    const auto found = scan(*file, compare, {}, reading);
    judgement.ok = found.ok();
    if (found) {
      judgement.report = found->report;
    } else {
      judgement.error = found.error();
    }
  }
  if (os.forbidden() != forbidden) {
    judgement.fault = "the log was written";
  }
  return judgement;
}

std::string fault_of(const Judgement& judgement, const LogSpecimen& specimen, std::size_t damaged) {
  const std::size_t all = specimen.checkpoints.size();
  if (!judgement.fault.empty()) {
    return judgement.fault;
  }
  if (!judgement.ok) {
    return "an error: " + judgement.error.message();
  }
  if (judgement.delivered != damaged) {
    return std::to_string(judgement.delivered) + " checkpoints were delivered, not " +
           std::to_string(damaged) + "; " + judgement.report.message();
  }
  if (judgement.report.head.value() != specimen.starts[damaged]) {
    return "the end is taken to be elsewhere: " + judgement.report.message();
  }
  const bool is_damage = judgement.report.end == LogEnd::kDamaged;
  if (is_damage != (damaged < specimen.vouched())) {
    return "the end is judged wrong: " + judgement.report.message();
  }
  if (damaged == all && judgement.report.end != LogEnd::kClean) {
    return "a false alarm: " + judgement.report.message();
  }
  return {};
}

}  // namespace keel_test
