// What tests of the watchdog share: stalls as they are reported, and what makes a journal stall.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "keel/base/os.h"
#include "keel/cil/journal.h"

namespace keel_test {

// A healthy step takes less, but on a busy machine, where it is reported too: so a test passes over
// reports of what it does not wait for.
constexpr std::uint64_t kDeadlineNs = 200'000'000;
// Where there is one report for all of a wait, which must not blame what a thread does that is
// about to go on. Looked at four times as often, as each is.
constexpr std::uint64_t kLongDeadlineNs = 4'000'000'000;

class StallReports {
 public:
  using What = keel::StallReport::What;
  using WaitsFor = keel::StallReport::WaitsFor;

  [[nodiscard]] keel::JournalConfig config(std::uint64_t deadline_ns = kDeadlineNs) {
    keel::JournalConfig config;
    config.stall_after_ns = deadline_ns;
    config.on_stall = [this](const keel::StallReport& report) {
      const std::lock_guard<std::mutex> lock(mutex_);
      reports_.push_back(report);
      lines_.emplace_back(report.line);
      changed_.notify_all();
    };
    return config;
  }
  [[nodiscard]] keel::StallReport wait_for(What what) {
    return wait_for_one([what](const auto& report) { return report.what == what; });
  }
  [[nodiscard]] keel::StallReport wait_for(What what, WaitsFor waits_for) {
    return wait_for_one([what, waits_for](const auto& report) {
      return report.what == what && report.waits_for == waits_for;
    });
  }
  [[nodiscard]] keel::StallReport wait_for(What what, keel::Sequence sequence, WaitsFor waits_for) {
    return wait_for_one([what, sequence, waits_for](const auto& report) {
      return report.what == what && report.sequence == sequence && report.waits_for == waits_for;
    });
  }
  [[nodiscard]] int count(What what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(
        std::count_if(reports_.begin(), reports_.end(),
                      [what](const auto& report) { return report.what == what; }));
  }
  [[nodiscard]] int count(What what, WaitsFor waits_for) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(
        std::count_if(reports_.begin(), reports_.end(), [what, waits_for](const auto& report) {
          return report.what == what && report.waits_for == waits_for;
        }));
  }
  [[nodiscard]] std::string line(What what, WaitsFor waits_for) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t i = 0; i < reports_.size(); ++i) {
      if (reports_[i].what == what && reports_[i].waits_for == waits_for) {
        return lines_[i];
      }
    }
    return "";
  }

 private:
  template <class Wanted>
  keel::StallReport wait_for_one(const Wanted& wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      const auto found = std::find_if(reports_.begin(), reports_.end(), wanted);
      if (found != reports_.end()) {
        return *found;
      }
      changed_.wait(lock);
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<keel::StallReport> reports_;
  std::vector<std::string> lines_;
};

// Holds whoever passes it while it is closed; asleep, so that what is stalled takes no CPU.
class ClosableGate {
 public:
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !closed_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
};

// Transactions in threads of their own, more than the log has room for at once, that end when the
// gate is open.
class OpenTransactions {
 public:
  OpenTransactions(keel::Journal& journal, std::size_t bytes) {
    gate_.close();
    for (int i = 0; i < 16; ++i) {
      threads_.emplace_back([this, &journal, bytes] {
        const auto transaction = journal.begin(bytes, 1);
        CHECK(transaction.ok());
        gate_.pass();
      });
    }
  }
  ~OpenTransactions() {
    gate_.open();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  OpenTransactions(const OpenTransactions&) = delete;
  OpenTransactions& operator=(const OpenTransactions&) = delete;

 private:
  ClosableGate gate_;
  std::vector<std::thread> threads_;
};

// Time for the watchdog to look a few times more: it is awake all that while.
inline void let_it_look(std::uint64_t deadline_ns = kDeadlineNs) {
  keel::os().sleep_ns(deadline_ns == kDeadlineNs ? 4 * deadline_ns : deadline_ns);
}

}  // namespace keel_test
