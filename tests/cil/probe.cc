#include "probe.h"

#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "keel/base/check.h"
#include "support/kernel_threads.h"

using namespace keel;

namespace keel_test {
namespace {

const char* name_of(Call call) {
  switch (call) {
    case Call::kSize: return "size";
    case Call::kFormat: return "format";
    case Call::kPin: return "pin";
    case Call::kCommitting: return "committing";
    case Call::kCommitted: return "committed";
    case Call::kUnpin: return "unpin";
    case Call::kAbort: return "abort";
    case Call::kRelease: return "release";
    case Call::kReleaseAborted: return "release-aborted";
  }
  return "?";
}

std::array<std::atomic<int>, 16> bug_counts;

}  // namespace

void Trace::add(Call call, std::uint32_t item, std::uint64_t value) {
  MutexLock lock(mutex_);
  if (count_ < events_.size()) {
    events_[count_++] = {call, item, value};
  }
}

std::string Trace::take() {
  MutexLock lock(mutex_);
  std::string text;
  for (std::size_t i = 0; i < count_; ++i) {
    text += (i == 0 ? "" : " ") + std::string(name_of(events_[i].call)) +
            std::to_string(events_[i].item);
  }
  count_ = 0;
  return text;
}

std::size_t Trace::count(Call call) const {
  MutexLock lock(mutex_);
  std::size_t found = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    found += events_[i].call == call ? 1U : 0U;
  }
  return found;
}

std::uint64_t Trace::last_value(Call call) const {
  MutexLock lock(mutex_);
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    value = events_[i].call == call ? events_[i].value : value;
  }
  return value;
}

void Probe::size(ItemSize& size) const {
  trace_.add(Call::kSize, id_);
  if (during_size) {
    during_size();
  }
  if (is_ordered) {
    size.ordered();
  } else if (!sized.empty()) {
    for (const std::size_t bytes : sized) {
      size.region(bytes);
    }
  } else {
    for (const std::string& region : regions) {
      size.region(region.size());
    }
  }
}

void Probe::format(ItemFormatter& formatter) const {
  trace_.add(Call::kFormat, id_);
  if (during_format) {
    during_format();
  }
  for (const std::string& region : regions) {
    formatter.copy(region.data(), region.size());
  }
}

RecoveryHandler collect_into(Found& found) {
  return [&found](const RecoveredCheckpoint& checkpoint) -> Status {
    FoundCheckpoint copy{checkpoint.sequence.value(), {}};
    for (const RecoveredItem& item : checkpoint.items) {
      FoundItem& to = copy.items.emplace_back();
      to.type = item.type();
      for (const RecoveredRegion& region : item.regions()) {
        std::string bytes(region.size_bytes(), '\0');
        region.copy_to(bytes.data(), bytes.size());
        to.regions.push_back(std::move(bytes));
      }
    }
    found.push_back(std::move(copy));
    return {};
  };
}

LogWorld::LogWorld(LogConfig config, const SimDiskOptions& options) : disk(options), scope_(disk) {
  if (auto made = create_log(kLogPath, config); !made) {
    FAIL(made.error().message());
  }
}

LogWorld::~LogWorld() {
  // The kernel lists a thread a moment longer than join() waits for it.
  for (int looks = 0; thread_named("keel-keeper") != 0; ++looks) {
    KEEL_CHECK(looks < 20'000, "a pool made before the disk that is in force");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::unique_ptr<Journal> LogWorld::open(JournalConfig config) {
  found.clear();
  if (config.cover_after_ns == 0) {
    config.cover_after_ns = UINT64_MAX / 4;
  }
  auto journal = Journal::open(kLogPath, config, collect_into(found));
  if (!journal) {
    FAIL(journal.error().message());
  }
  return std::move(*journal);
}

SimDisk& LogWorld::after_power_cut(const SimSnapshot& moment) {
  SimDisk& after = *after_power_cut_.emplace_back(std::make_unique<SimDisk>());
  after.boot_with(moment, [](const SimSector&) { return SimFate::kDrop; });
  return after;
}

Found LogWorld::read() {
  Found all;
  (void)scan(all);
  return all;
}

RecoveryReport LogWorld::scan(Found& all) {
  auto report = scan_log(kLogPath, collect_into(all));
  if (!report) {
    FAIL(report.error().message());
  }
  return *report;
}

Sequence commit(Journal& journal, const std::vector<LogItem*>& items, std::size_t bytes) {
  auto transaction = journal.begin(bytes, static_cast<std::uint32_t>(items.size()));
  if (!transaction) {
    FAIL(transaction.error().message());
  }
  for (LogItem* item : items) {
    REQUIRE(transaction->log(*item).ok());
  }
  auto sequence = transaction->commit();
  if (!sequence) {
    FAIL(sequence.error().message());
  }
  return *sequence;
}

void finish(std::unique_ptr<Journal>& journal) {
  if (const Status status = journal->close(); !status) {
    FAIL(status.error().message());
  }
  journal.reset();
}

BugCounter::BugCounter() {
  for (auto& counter : bug_counts) {
    counter = 0;
  }
  before_ = set_bug_handler(
      [](const BugReport& report) { ++bug_counts[static_cast<std::size_t>(report.bug)]; });
}

BugCounter::~BugCounter() { set_bug_handler(before_); }

int BugCounter::count(Bug bug) const { return bug_counts[static_cast<std::size_t>(bug)]; }

std::string random_bytes(std::uint64_t seed, std::size_t bytes) {
  std::string text((bytes + 7) / 8 * 8, '\0');
  for (std::size_t at = 0; at < text.size(); at += 8) {
    const std::uint64_t value = keel::sim_random(seed);
    std::memcpy(text.data() + at, &value, sizeof value);
  }
  text.resize(bytes);
  return text;
}

}  // namespace keel_test
