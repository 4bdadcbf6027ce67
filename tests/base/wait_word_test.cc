// WaitWord: no wake is lost, and one wake reaches everybody.
#include "keel/base/wait_word.h"

#include <doctest/doctest.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "keel/base/os.h"
#include "support/kernel_threads.h"

using keel::os;
using keel::WaitWord;
using keel_test::is_asleep;

namespace {

constexpr std::uint64_t kMillisecondNs = 1'000'000;

}  // namespace

TEST_CASE("a wake between a waiter's look and its sleep is not missed") {
  WaitWord word;
  const std::uint32_t seen = word.value();
  word.wake(WaitWord::kEverybody);
  CHECK(word.value() != seen);
  // However late it is: who sees another value does not look at the time.
  CHECK(word.wait(seen, WaitWord::kEverybody, os().monotonic_ns() + 500 * kMillisecondNs));
}

TEST_CASE("a wait on a word that nobody wakes ends at its deadline and says so") {
  WaitWord word;
  const std::uint64_t deadline_ns = os().monotonic_ns() + 5 * kMillisecondNs;
  while (word.wait(word.value(), WaitWord::kEverybody, deadline_ns)) {
  }
  CHECK(os().monotonic_ns() >= deadline_ns);
}

TEST_CASE("one wake reaches every sleeper, also more than a few calls wake") {
  constexpr std::size_t kSleepers = 100;
  WaitWord word;
  std::atomic<bool> done{false};
  std::array<std::atomic<pid_t>, kSleepers> ids{};
  std::vector<std::thread> sleepers;
  for (std::size_t i = 0; i < kSleepers; ++i) {
    sleepers.emplace_back([&, i] {
      ids[i] = ::gettid();
      for (std::uint32_t seen = word.value(); !done; seen = word.value()) {
        (void)word.wait(seen, 1U << i % 32, WaitWord::kForever);
      }
    });
  }
  // Who is awake still when it is done sees that; asleep he has only the wake.
  for (const std::atomic<pid_t>& id : ids) {
    while (id == 0 || !is_asleep(id)) {
      std::this_thread::yield();
    }
  }
  done = true;
  word.wake(WaitWord::kEverybody);
  for (std::thread& sleeper : sleepers) {
    sleeper.join();
  }
  CHECK(word.value() == 1);
}
