// What tests of the watchdog share: stalls as they are reported, and what makes a journal stall.
#pragma once

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "keel/base/os.h"
#include "keel/cil/journal.h"

namespace keel_test {

// Long enough that no healthy step takes it on a busy machine, or one is blamed.
constexpr std::uint64_t kDeadlineNs = 200'000'000;

class StallReports {
 public:
  [[nodiscard]] keel::JournalConfig config() {
    keel::JournalConfig config;
    config.stall_after_ns = kDeadlineNs;
    config.on_stall = [this](const keel::StallReport& report) {
      const std::lock_guard<std::mutex> lock(mutex_);
      reports_.push_back(report);
      lines_.emplace_back(report.line);
      changed_.notify_all();
    };
    return config;
  }
  [[nodiscard]] keel::StallReport wait_for(keel::StallReport::What what) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      for (const keel::StallReport& report : reports_) {
        if (report.what == what) {
          return report;
        }
      }
      changed_.wait(lock);
    }
  }
  [[nodiscard]] keel::StallReport wait_for(keel::StallReport::What what, keel::Sequence sequence) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      for (const keel::StallReport& report : reports_) {
        if (report.what == what && report.sequence == sequence) {
          return report;
        }
      }
      changed_.wait(lock);
    }
  }
  [[nodiscard]] int count(keel::StallReport::What what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    int found = 0;
    for (const keel::StallReport& report : reports_) {
      found += report.what == what ? 1 : 0;
    }
    return found;
  }
  [[nodiscard]] std::string line(keel::StallReport::What what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t i = 0; i < reports_.size(); ++i) {
      if (reports_[i].what == what) {
        return lines_[i];
      }
    }
    return "";
  }

 private:
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

// Time for the watchdog to look many times more: it is awake all that while.
inline void let_it_look() { keel::os().sleep_ns(4 * kDeadlineNs); }

}  // namespace keel_test
