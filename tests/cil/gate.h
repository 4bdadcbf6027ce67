// A point that threads come to and wait at, until the test lets them go on.
#pragma once

#include <atomic>
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

// Gives other threads time. Nothing depends on it but how much the test can see.
inline void let_others_run() {
  for (int i = 0; i < 20000; ++i) {
    std::this_thread::yield();
  }
}

}  // namespace keel_test
