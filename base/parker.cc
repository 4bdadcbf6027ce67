#include "keel/base/parker.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace keel {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

constexpr std::uint64_t kSecondNs = 1'000'000'000;

}  // namespace

bool Parker::park_while(std::uint32_t value, std::uint64_t deadline_ns) {
  struct timespec until {};
  until.tv_sec = static_cast<time_t>(deadline_ns / kSecondNs);
  until.tv_nsec = static_cast<long>(deadline_ns % kSecondNs);
  // FUTEX_WAIT_BITSET takes an absolute time of the monotonic clock.
  const long result =
      ::syscall(SYS_futex, &word_, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
                deadline_ns == kForever ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
  return result == 0 || errno != ETIMEDOUT;
}

void Parker::set(std::uint32_t value) {
  word_.store(value, std::memory_order_release);
  wake();
}

bool Parker::replace(std::uint32_t expected, std::uint32_t value) {
  if (!word_.compare_exchange_strong(expected, value, std::memory_order_acq_rel)) {
    return false;
  }
  wake();
  return true;
}

void Parker::wake() { ::syscall(SYS_futex, &word_, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1); }

}  // namespace keel
