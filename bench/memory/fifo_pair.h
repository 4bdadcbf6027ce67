// A producer on the calling thread (CPU 0), a consumer on one of its own (CPU 1), and the ring
// between them: 256 to 320 buffers are live, since the consumer leaves the last 256 alone and the
// producer waits at 320.
//
// I1 What the consumer alone writes, its times and its place, is read only after drain().
// I2 Live is what was asked for in the last 256 buffers, so at most what is live in truth.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>

#include "keel/measure/histogram.h"
#include "memory/workload.h"

namespace keel::bench {

class FifoPair {
 public:
  static constexpr std::uint64_t kBehind = 256;

  FifoPair(const Backend& backend, bool any_size);
  ~FifoPair();
  FifoPair(const FifoPair&) = delete;
  FifoPair& operator=(const FifoPair&) = delete;

  // Allocates, writes and hands over so many buffers.
  void run(std::uint64_t buffers);
  // The same, with a look at the resident memory every 256 buffers and at each peak of live memory.
  void run_sampled(std::uint64_t buffers);
  void sample();

  // Waits until the consumer has freed everything.
  void drain();
  // Both threads sleep. After drain().
  void sleep(std::uint64_t duration_ns);

  // Whether times are kept from now on; the consumer's of the last buffers may be kept or not.
  void set_timed(bool timed);
  // Drains first.
  void forget_times();

  Histogram alloc_times;
  Histogram ready_times;  // allocated and filled
  Histogram free_times;   // the consumer's
  std::uint64_t peak_resident = 0;
  std::uint64_t peak_live = 0;

 private:
  static constexpr std::uint64_t kMostLive = 320;
  static constexpr std::uint64_t kSlots = 512;

  // Stores with release pair with the other side's acquire loads of the same number: `pushed` hands
  // a slot to the consumer, `freed` gives it back.
  struct Ring {
    std::array<void*, kSlots> slots{};
    alignas(64) std::atomic<std::uint64_t> pushed{0};
    alignas(64) std::atomic<std::uint64_t> freed{0};
    // Settings; written between passes, and it does not matter when exactly they are seen.
    alignas(64) std::atomic<std::uint64_t> behind{kBehind};
    std::atomic<bool> timed{false};
    std::atomic<bool> asleep{false};
    std::atomic<bool> stop{false};
  };

  void consume();
  void push_one();
  void count_live(std::size_t bytes);

  const Backend& backend_;
  FifoSizes sizes_;
  Ring ring_;
  bool timed_ = false;
  std::uint64_t pushed_ = 0;
  std::uint64_t live_ = 0;
  std::array<std::size_t, kBehind> live_sizes_{};
  std::thread consumer_;
};

}  // namespace keel::bench
