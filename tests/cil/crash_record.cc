#include "crash_record.h"

#include <algorithm>
#include <utility>

#include "keel/base/check.h"

using namespace keel;

namespace keel_test::crash_lab {

LifeRecord::LifeRecord(Run& run, std::uint32_t depth, std::uint64_t seed, SimDisk& disk,
                       const Beginning& beginning)
    : run_(run), depth_(depth), seed_(seed), disk_(disk), beginning_(beginning) {
  for (std::size_t id = 0; id < kCrashObjects; ++id) {
    history_[id].push_back({beginning.sequence, beginning.base[id]});
  }
  MutexLock lock(mutex_);
  home_ = beginning.home;
  forced_ = beginning.sequence;
}

Version LifeRecord::new_version() {
  MutexLock lock(mutex_);
  return ++run_.last_version;
}

void LifeRecord::committed(std::size_t id, std::uint64_t sequence, Version version) {
  history_[id].push_back({sequence, version});
}

void LifeRecord::goes_home(std::size_t id, Version version) {
  MutexLock lock(mutex_);
  home_[id] = version;
}

void LifeRecord::recovered_goes_home() {
  MutexLock lock(mutex_);
  for (std::size_t id = 0; id < kCrashObjects; ++id) {
    // What this life has written home is newer.
    home_[id] = std::max(home_[id], beginning_.base[id]);
  }
}

void LifeRecord::promise(std::uint64_t sequence) {
  {
    MutexLock lock(mutex_);
    if (forced_ >= sequence) {
      return;
    }
    forced_ = sequence;
  }
  take_moment(true);
}

void LifeRecord::take_moment(bool promised, const SimDurableWrite* write) {
  Moment moment;
  moment.in_write = write != nullptr;
  moment.step = run_.plan.step ? run_.plan.step() : 0;
  moment.promised = promised;
  {
    MutexLock lock(mutex_);
    moment.forced = forced_;
    moment.closed = closed_;
    moment.home_before = home_;
  }
  moment.disk = write != nullptr ? disk_.snapshot_during(*write) : disk_.snapshot();
  MutexLock lock(mutex_);
  moment.home = home_;
  moments_.push_back(std::move(moment));
}

void LifeRecord::closed_in_order() {
  {
    MutexLock lock(mutex_);
    forced_ = std::max(forced_, newest_sequence());
    closed_ = true;
  }
  take_moment(true);
}

bool LifeRecord::succeeded(const Status& status, const char* what) {
  if (!status.ok()) {
    const Error& error = status.error();
    KEEL_CHECK(may_fail(Failing::kJournal, error), what, static_cast<std::uint64_t>(error.code),
               static_cast<std::uint64_t>(error.sys_errno));
    fail();
  }
  return status.ok();
}

void LifeRecord::was_refused(const char* what, const Error& error) const {
  KEEL_CHECK(may_fail(Failing::kCall, error), what, static_cast<std::uint64_t>(error.code),
             static_cast<std::uint64_t>(error.sys_errno));
}

bool LifeRecord::may_fail(Failing what, const Error& error) const {
  return run_.plan.may_fail && run_.plan.may_fail(disk_, what, error);
}

std::uint64_t LifeRecord::newest_sequence() const {
  std::uint64_t newest = 0;
  for (const auto& changes : history_) {
    newest = std::max(newest, changes.back().sequence);
  }
  return newest;
}

void LifeRecord::asked_for_callback(bool granted) {
  MutexLock lock(mutex_);
  callbacks_asked_ += granted ? 1U : 0U;
}

void LifeRecord::callback_called() {
  MutexLock lock(mutex_);
  ++callbacks_called_;
}

void LifeRecord::check_callbacks() {
  MutexLock lock(mutex_);
  KEEL_CHECK(callbacks_called_ == callbacks_asked_, "callbacks called, asked for",
             callbacks_called_, callbacks_asked_);
}

Version LifeRecord::expected(std::size_t id, std::uint64_t sequence) const {
  Version version = 0;
  for (const Change& change : history_[id]) {
    if (change.sequence <= sequence) {
      version = change.version;
    }
  }
  return version;
}

std::string LifeRecord::place_of(const Moment& moment) const {
  return "depth " + std::to_string(depth_) + ", life's seed " + std::to_string(seed_) + ", I/Os " +
         std::to_string(&moment - moments_.data()) +
         (moment.in_write ? ", in a durable write" : "") + (moment.closed ? ", closed" : "") +
         ", step " + std::to_string(moment.step) + ", forced " + std::to_string(moment.forced);
}

}  // namespace keel_test::crash_lab
