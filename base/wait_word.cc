#include "keel/base/wait_word.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace keel {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

constexpr std::uint64_t kSecondNs = 1'000'000'000;
// Woken in one system call. It keeps its CPU until it is done: for all of many that would be tens
// of microseconds, in which the thread whose write has just ended could not go on there.
constexpr int kMostAtOnce = 8;

}  // namespace

bool WaitWord::wait(std::uint32_t seen, std::uint32_t bits, std::uint64_t deadline_ns) {
  struct timespec until {};
  until.tv_sec = static_cast<time_t>(deadline_ns / kSecondNs);
  until.tv_nsec = static_cast<long>(deadline_ns % kSecondNs);
  // With a bit set the time is an absolute one of the monotonic clock.
  const long result = ::syscall(SYS_futex, &value_, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen,
                                deadline_ns == kForever ? nullptr : &until, nullptr, bits);
  return result == 0 || errno != ETIMEDOUT;
}

void WaitWord::wake(std::uint32_t bits) {
  value_.fetch_add(1, std::memory_order_release);
  // Who comes meanwhile sees the new value and does not sleep for this wake: it ends.
  while (::syscall(SYS_futex, &value_, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, kMostAtOnce, nullptr,
                   nullptr, bits) == kMostAtOnce) {
  }
}

}  // namespace keel
