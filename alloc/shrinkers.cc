#include "shrinkers.h"

#include <algorithm>

namespace keel {
namespace {
// Set while this thread is inside a scan: a shrinker that allocates must not wait for itself.
constinit thread_local bool t_scanning = false;
}  // namespace

Status Shrinkers::add(Shrinker& shrinker) {
  MutexLock lock(lock_);
  const auto end = list_.begin() + count_;
  if (count_ == kMost || std::find(list_.begin(), end, &shrinker) != end) {
    return Error{Errc::kInvalidArgument, 0, "registering a shrinker; there are", count_};
  }
  list_[count_++] = &shrinker;
  return {};
}

void Shrinkers::remove(Shrinker& shrinker) {
  MutexLock lock(lock_);
  ++removing_;
  while (scanning_) {
    wait_for_change();
  }
  --removing_;
  const auto end = list_.begin() + count_;
  const auto found = std::find(list_.begin(), end, &shrinker);
  if (found != end) {
    std::copy(found + 1, end, found);
    --count_;
  }
  changed_.wake(WaitWord::kEverybody);
}

void Shrinkers::wait_for_change() {
  const std::uint32_t seen = changed_.value();
  lock_.unlock();
  (void)changed_.wait(seen, WaitWord::kEverybody, WaitWord::kForever);
  lock_.lock();
}

std::optional<Bytes> Shrinkers::scan(Bytes wanted, bool shares) {
  if (t_scanning) {
    return Bytes(0);
  }
  std::array<Shrinker*, kMost> list{};
  unsigned count = 0;
  {
    MutexLock lock(lock_);
    const bool another = scanning_;
    while (scanning_ || removing_ != 0) {  // Who removes has it before the next scan.
      wait_for_change();
    }
    if (another && shares) {
      return std::nullopt;
    }
    if (count_ == 0) {
      return Bytes(0);
    }
    scanning_ = true;  // Holds remove() off while the copy is in use.
    list = list_;
    count = count_;
  }
  t_scanning = true;
  Bytes given{};
  std::uint64_t calls = 0;
  for (unsigned i = 0; i < count && given < wanted; ++i) {
    if (list[i]->count() != Bytes(0)) {
      given += list[i]->scan(wanted - given);
      ++calls;
    }
  }
  t_scanning = false;
  MutexLock lock(lock_);
  scanning_ = false;
  counts_.calls += calls;
  counts_.given += given;
  changed_.wake(WaitWord::kEverybody);
  return given;
}

bool Shrinkers::any() const {
  MutexLock lock(lock_);
  return count_ != 0;
}

bool Shrinkers::scanning_here() { return t_scanning; }

ShrinkerCounts Shrinkers::counts() const {
  MutexLock lock(lock_);
  return counts_;
}

}  // namespace keel
