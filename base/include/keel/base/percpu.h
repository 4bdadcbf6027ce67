// Per-CPU data: one cache-line-padded value per possible CPU, found by the CPU the thread runs on.
//
// The CPU id is a hint: the thread may move right after it was read. So each slot still needs its
// own lock or atomics; what per-CPU buys is that they are almost never contended.
// Source: restartable sequences (rseq) give the id in one load where the C library registers them.
#pragma once

#include <cstddef>
#include <memory>

namespace keel {

// CPU that the thread runs on, below possible_cpus().
[[nodiscard]] unsigned current_cpu();

// Number of CPU ids that the kernel may ever use. Constant during the process.
[[nodiscard]] unsigned possible_cpus();

// Two lines: adjacent-line prefetch makes pairs of 64 byte lines move together.
inline constexpr std::size_t kCacheLinePairBytes = 128;

template <class T>
class PerCpu {
 public:
  PerCpu() : slots_(std::make_unique<Slot[]>(possible_cpus())) {}

  [[nodiscard]] T& local() { return slots_[current_cpu()].value; }
  [[nodiscard]] T& of(unsigned cpu) { return slots_[cpu].value; }
  [[nodiscard]] const T& of(unsigned cpu) const { return slots_[cpu].value; }
  [[nodiscard]] static unsigned size() { return possible_cpus(); }

 private:
  struct alignas(kCacheLinePairBytes) Slot {
    T value{};
  };
  std::unique_ptr<Slot[]> slots_;
};

}  // namespace keel
