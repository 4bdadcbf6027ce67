#include "keel/base/wait_word.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

#include "keel/base/thread_scheduler.h"

namespace keel {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

constexpr std::uint64_t kSecondNs = 1'000'000'000;
// Woken in one system call. It keeps its CPU until it is done: for all of many that would be tens
// of microseconds, in which the thread whose write has just ended could not go on there.
constexpr int kMostAtOnce = 8;
constexpr int kMostCalls = 8;

}  // namespace

bool WaitWord::wait(std::uint32_t seen, std::uint32_t bits, std::uint64_t deadline_ns) {
  thread_point(ThreadPoint::kWaitWord);
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    return value_.load(std::memory_order_acquire) != seen ||
           scheduler->wait(ThreadPoint::kWaitWord, this, bits, deadline_ns);
  }
  struct timespec until {};
  until.tv_sec = static_cast<time_t>(deadline_ns / kSecondNs);
  until.tv_nsec = static_cast<long>(deadline_ns % kSecondNs);
  // With a bit set the time is an absolute one of the monotonic clock.
  const long result = ::syscall(SYS_futex, &value_, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen,
                                deadline_ns == kForever ? nullptr : &until, nullptr, bits);
  return result == 0 || errno != ETIMEDOUT;
}

void WaitWord::wake(std::uint32_t bits) {
  thread_point(ThreadPoint::kNotify);
  value_.fetch_add(1, std::memory_order_release);
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    scheduler->wake(this, bits, ThreadScheduler::kEverybody);
    return;
  }
  const auto wake_some = [this, bits](int most) {
    return ::syscall(SYS_futex, &value_, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, most, nullptr,
                     nullptr, bits);
  };
  // Bounded: who is woken without a reason sleeps again, and would be woken again and again.
  for (int i = 0; i < kMostCalls; ++i) {
    if (wake_some(kMostAtOnce) < kMostAtOnce) {
      return;
    }
  }
  (void)wake_some(INT_MAX);
}

}  // namespace keel
