// A log item that records what the journal asks of it, and recovered checkpoints as plain values.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/mutex.h"
#include "keel/cil/journal.h"
#include "support/sim_disk.h"

namespace keel_test {

enum class Call : std::uint8_t {
  kSize,
  kFormat,
  kPin,
  kCommitting,
  kCommitted,
  kUnpin,
  kAbort,  // unpin(aborted)
  kRelease,
  kReleaseAborted,
};

// What the items were asked, in order. Of fixed room: they record under the context lock, where
// nothing may allocate.
class Trace {
 public:
  void add(Call call, std::uint32_t item, std::uint64_t value = 0);
  // "size1 format1 pin1"; empties the trace.
  [[nodiscard]] std::string take();
  [[nodiscard]] std::size_t count(Call call) const;
  // Of the last such call, 0 if there was none.
  [[nodiscard]] std::uint64_t last_value(Call call) const;

 private:
  struct Event {
    Call call;
    std::uint32_t item;
    std::uint64_t value;
  };
  mutable keel::Mutex mutex_{keel::LockRank::kLeaf};
  std::array<Event, 512> events_ KEEL_GUARDED_BY(mutex_){};
  std::size_t count_ KEEL_GUARDED_BY(mutex_) = 0;
};

class Probe : public keel::LogItem {
 public:
  // Its type in the log is 16 + id.
  Probe(Trace& trace, std::uint32_t id) : LogItem(16 + id), trace_(trace), id_(id) {}

  std::vector<std::string> regions;  // what format() writes
  std::vector<std::size_t> sized;    // what size() says instead of the regions' lengths
  bool is_ordered = false;
  keel::Tracking after = keel::Tracking::kTrack;           // what committed() answers
  std::function<keel::PushResult(Probe&)> home = nullptr;  // what push() does
  std::function<void()> during_size;                       // called by size()
  std::function<void()> during_format;                     // called by format()
  std::function<void()> during_committed;                  // called by committed(), first of all

 protected:
  void size(keel::ItemSize& size) const override;
  void format(keel::ItemFormatter& formatter) const override;
  void pin() override { trace_.add(Call::kPin, id_); }
  void unpin(bool aborted) override { trace_.add(aborted ? Call::kAbort : Call::kUnpin, id_); }
  void committing(keel::Sequence sequence) override {
    trace_.add(Call::kCommitting, id_, sequence.value());
  }
  keel::Tracking committed(keel::Lsn lsn) override {
    if (during_committed) {
      during_committed();
    }
    trace_.add(Call::kCommitted, id_, lsn.value());
    return after;
  }
  [[nodiscard]] bool has_home() const override { return home != nullptr; }
  keel::PushResult push() override { return home(*this); }
  void release(bool aborted) override {
    trace_.add(aborted ? Call::kReleaseAborted : Call::kRelease, id_);
  }

 private:
  Trace& trace_;
  const std::uint32_t id_;
};

struct FoundItem {
  std::uint32_t type;
  std::vector<std::string> regions;
  bool operator==(const FoundItem&) const = default;
};
struct FoundCheckpoint {
  std::uint64_t sequence;
  std::vector<FoundItem> items;
  bool operator==(const FoundCheckpoint&) const = default;
};
using Found = std::vector<FoundCheckpoint>;

// Appends each checkpoint to `found`.
[[nodiscard]] keel::RecoveryHandler collect_into(Found& found);

inline const keel::RecoveryHandler kIgnore = [](const keel::RecoveredCheckpoint&) {
  return keel::Status{};
};

constexpr const char* kLogPath = "/sim/log";

// A simulated disk in force, with a log on it.
class LogWorld {
 public:
  explicit LogWorld(keel::LogConfig config = {.size = keel::kMinLogBytes},
                    const keel::SimDiskOptions& options = {});
  // Ends the program if a pool with a thread outlives the world: that thread calls whichever disk
  // is in force, at any time.
  ~LogWorld();
  LogWorld(const LogWorld&) = delete;
  LogWorld& operator=(const LogWorld&) = delete;

  // Fails the test if it cannot. Without `cover_after_ns` the log is never covered: a test that is
  // held up by the machine is still about what it was about.
  [[nodiscard]] std::unique_ptr<keel::Journal> open(keel::JournalConfig config = {});
  // What a reopen would find; the journal must be gone.
  [[nodiscard]] Found read();
  // The same with the report.
  [[nodiscard]] keel::RecoveryReport scan(Found& found);

  // Another disk, as a power cut at that moment leaves this one if nothing pending came to be. It
  // stays as long as the world: threads of a journal that goes on call whichever disk is in force.
  [[nodiscard]] keel::SimDisk& after_power_cut(const keel::SimSnapshot& moment);
  [[nodiscard]] keel::SimDisk& after_power_cut() { return after_power_cut(disk.snapshot()); }

  keel::SimDisk disk;

 private:
  std::vector<std::unique_ptr<keel::SimDisk>> after_power_cut_;
  keel::ScopedOs scope_;

 public:
  Found found;  // by the last open()
};

// Commits the items in one transaction with room to spare. Fails the test if it cannot.
keel::Sequence commit(keel::Journal& journal, const std::vector<keel::LogItem*>& items,
                      std::size_t bytes = 1000);

// Closes the journal and lets go of its log. Fails the test if it cannot.
void finish(std::unique_ptr<keel::Journal>& journal);

// Counts bug reports instead of aborting, while it lives.
class BugCounter {
 public:
  BugCounter();
  ~BugCounter();
  BugCounter(const BugCounter&) = delete;
  BugCounter& operator=(const BugCounter&) = delete;
  [[nodiscard]] int count(keel::Bug bug) const;

 private:
  keel::BugHandler before_;
};

// Bytes that depend on the seed alone.
[[nodiscard]] std::string random_bytes(std::uint64_t seed, std::size_t bytes);

}  // namespace keel_test
