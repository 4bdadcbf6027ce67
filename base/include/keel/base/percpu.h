// Per-CPU data: one cache-line-padded value per possible CPU, found by the CPU the thread runs on.
//
// The CPU id is a hint: the thread may move right after it was read. So each slot still needs its
// own lock or atomics; what per-CPU buys is that they are almost never contended.
// Source: restartable sequences (rseq) give the id in one load where the C library registers them.
#pragma once

#include <cstddef>
#include <memory>

#include "keel/base/os.h"

namespace keel {

// CPU that the thread runs on, below possible_cpus().
[[nodiscard]] unsigned current_cpu();

// Number of CPU ids that the kernel may ever use. Constant during the process.
[[nodiscard]] unsigned possible_cpus();

// Two lines: adjacent-line prefetch makes pairs of 64 byte lines move together.
inline constexpr std::size_t kCacheLinePairBytes = 128;

// The slots are metadata, taken through os() by the constructor. Whoever makes one asks ok() before
// it is used; T's own constructor must not throw.
template <class T>
class PerCpu {
 public:
  PerCpu() {
    memory_ = os().metadata_allocate(sizeof(Slot) * size() + alignof(Slot) - 1);
    if (memory_ == nullptr) {
      return;
    }
    // metadata_allocate aligns for plain types only.
    void* aligned = memory_;
    std::size_t room = sizeof(Slot) * size() + alignof(Slot) - 1;
    slots_ = static_cast<Slot*>(std::align(alignof(Slot), sizeof(Slot) * size(), aligned, room));
    std::uninitialized_value_construct_n(slots_, size());
  }
  ~PerCpu() {
    if (ok()) {
      std::destroy_n(slots_, size());
      os().metadata_free(memory_);
    }
  }
  PerCpu(const PerCpu&) = delete;
  PerCpu& operator=(const PerCpu&) = delete;

  // False if there was no memory for the slots; then nothing else may be called.
  [[nodiscard]] bool ok() const { return slots_ != nullptr; }

  [[nodiscard]] T& local() { return slots_[current_cpu()].value; }
  [[nodiscard]] T& of(unsigned cpu) { return slots_[cpu].value; }
  [[nodiscard]] const T& of(unsigned cpu) const { return slots_[cpu].value; }
  [[nodiscard]] static unsigned size() { return possible_cpus(); }

 private:
  struct alignas(kCacheLinePairBytes) Slot {
    T value{};
  };

  void* memory_ = nullptr;
  Slot* slots_ = nullptr;
};

}  // namespace keel
