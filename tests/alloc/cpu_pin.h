// Which CPU a test's thread runs on.
#pragma once

#include <sched.h>

#include <vector>

namespace keel_test {

// The CPUs that this thread may run on.
inline std::vector<unsigned> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  (void)::sched_getaffinity(0, sizeof(set), &set);
  std::vector<unsigned> cpus;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) {
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

// Moves this thread to the CPU, and keeps it there.
inline void pin_to(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)::sched_setaffinity(0, sizeof(set), &set);
}

// Keeps this thread on one CPU while it lives.
class Pinned {
 public:
  explicit Pinned(unsigned cpu = allowed_cpus().front()) : cpu_(cpu) {
    (void)::sched_getaffinity(0, sizeof(before_), &before_);
    pin_to(cpu);
  }
  ~Pinned() { (void)::sched_setaffinity(0, sizeof(before_), &before_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  [[nodiscard]] unsigned cpu() const { return cpu_; }

 private:
  unsigned cpu_;
  cpu_set_t before_;
};

}  // namespace keel_test
