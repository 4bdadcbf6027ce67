// A point that threads come to and wait at, until the test lets them go on.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace keel_test {

class Gate {
 public:
  // Waits until open().
  void pass() {
    arrived_ = true;
    while (!open_) {
      std::this_thread::yield();
    }
  }
  void wait_for_arrival() const {
    while (!arrived_) {
      std::this_thread::yield();
    }
  }
  [[nodiscard]] bool arrived() const { return arrived_; }
  void open() { open_ = true; }

 private:
  std::atomic<bool> arrived_{false};
  std::atomic<bool> open_{false};
};

template <class Until>
void yield_until(const Until& until) {
  while (!until()) {
    std::this_thread::yield();
  }
}

// True as soon as `until` is; false if that takes so long that nothing explains it but that it is
// missing: a minute of the clock, for on a busy machine who is to do it may not run for long.
template <class Until>
[[nodiscard]] bool soon(const Until& until) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!until()) {
    if (std::chrono::steady_clock::now() > end) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

// Gives other threads time, some 20 ms at most. Nothing depends on it but how much the test can
// see.
inline void let_others_run() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  for (int i = 0; i < 20000 && std::chrono::steady_clock::now() < end; ++i) {
    std::this_thread::yield();
  }
}

}  // namespace keel_test
