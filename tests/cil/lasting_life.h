// A journal on a small simulated log, and items without a home that live in it: whatever is
// committed, they must be logged again when they hold the tail, and a crash must leave them whole.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ail.h"
#include "probe.h"
#include "support/sim_disk.h"

namespace keel_test {

// Without a home. One that passes leaves the log at once.
class Lasting : public keel::LogItem {
 public:
  explicit Lasting(std::uint32_t type, bool passes = false) : LogItem(type), passes_(passes) {}
  std::string content;
  std::function<void()> during_committed;  // may be empty
  std::atomic<bool> at_home{false};        // says that it has one

 protected:
  void size(keel::ItemSize& size) const override { size.region(content.size()); }
  void format(keel::ItemFormatter& formatter) const override {
    formatter.copy(content.data(), content.size());
  }
  keel::Tracking committed(keel::Lsn) override {
    if (during_committed) {
      during_committed();
    }
    return passes_ ? keel::Tracking::kRelease : keel::Tracking::kTrack;
  }
  [[nodiscard]] bool has_home() const override { return at_home; }

 private:
  const bool passes_;
};

// The simulated disk, where there may be no memory for buckets of the AIL.
class BucketlessDisk : public keel::SimDisk {
 public:
  std::atomic<bool> no_buckets{false};

  void* metadata_allocate(std::size_t bytes) override {
    const bool refused = no_buckets && bytes == sizeof(keel::Bucket);
    return refused ? nullptr : SimDisk::metadata_allocate(bytes);
  }
};

constexpr std::uint32_t kLastingType = 100;  // of the first item that stays

struct Life {
  explicit Life(keel::LogConfig config = {.size = keel::kMinLogBytes}, unsigned depth = 0)
      : scope(disk) {
    REQUIRE(keel::create_log(kLogPath, config).ok());
    // So that one transaction may be of many items, whose snapshots might take a page each.
    keel::JournalConfig settings;
    settings.cil_memory = keel::Bytes(std::uint64_t{128} << 20);
    settings.depth = depth;
    auto opened = keel::Journal::open(kLogPath, settings, kIgnore);
    REQUIRE(opened.ok());
    journal = std::move(*opened);
    info = journal->info();
  }

  Lasting& make(std::string content) {
    const auto type = kLastingType + static_cast<std::uint32_t>(items.size());
    items.push_back(std::make_unique<Lasting>(type));
    items.back()->content = std::move(content);
    return *items.back();
  }
  // Commits and forces them as one.
  [[nodiscard]] keel::Status put(const std::vector<keel::LogItem*>& some, std::size_t bytes) {
    auto transaction = journal->begin(bytes, static_cast<std::uint32_t>(some.size()));
    if (!transaction) {
      return transaction.error();
    }
    for (keel::LogItem* item : some) {
      REQUIRE(transaction->log(*item).ok());
    }
    const auto sequence = transaction->commit();
    REQUIRE(sequence.ok());
    REQUIRE(journal->force(*sequence).ok());
    return {};
  }
  // Writes so many times the log's bytes of what leaves it at once; false: it was called full.
  [[nodiscard]] bool go_round(std::uint64_t laps, std::size_t bytes) {
    Lasting passing(99, true);
    passing.content = std::string(bytes, 'p');
    for (std::uint64_t written = 0; written < laps * info.data.value(); written += bytes) {
      if (!put({&passing}, bytes)) {
        return false;
      }
    }
    return true;
  }
  // A crash now must leave all items' contents as they are. (Looked at when the journal is closed,
  // whose threads go on writing.)
  void note_moment() {
    std::map<std::uint32_t, std::string> contents;
    for (const auto& item : items) {
      if (!item->content.empty()) {
        contents[item->type()] = item->content;
      }
    }
    moments.emplace_back(disk.snapshot(), std::move(contents));
  }
  void end() {
    journal->audit();
    note_moment();
    finish(journal);
    for (const auto& [moment, contents] : moments) {
      keel::SimDisk after;
      after.boot_with(moment, [](const keel::SimSector&) { return keel::SimFate::kDrop; });
      const keel::ScopedOs crashed(after);
      Found found;
      REQUIRE(keel::scan_log(kLogPath, collect_into(found)).ok());
      std::map<std::uint32_t, std::string> newest;
      for (const FoundCheckpoint& checkpoint : found) {
        for (const FoundItem& item : checkpoint.items) {
          newest[item.type] = item.regions.at(0);
        }
      }
      for (const auto& one : contents) {
        CAPTURE(one.first);
        REQUIRE(newest[one.first] == one.second);
      }
    }
  }

  BucketlessDisk disk;
  keel::ScopedOs scope;
  std::vector<std::unique_ptr<Lasting>> items;
  std::unique_ptr<keel::Journal> journal;
  keel::LogInfo info;
  std::vector<std::pair<keel::SimSnapshot, std::map<std::uint32_t, std::string>>> moments;
};

// Fails the test with the error's text, if it is one.
inline void take(const keel::Status& status) {
  if (!status) {
    FAIL(status.error().message());
  }
}

}  // namespace keel_test
