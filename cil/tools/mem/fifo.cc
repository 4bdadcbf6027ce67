// fifo: one thread of a pair allocates and writes, the other frees 256 buffers behind.
//
// Sizes are powers of two from 4 KiB to 1 MiB; 64 bytes of each page are written, outside the
// times. A fifth of the time is warm-up; three fifths are timed; in the last fifth, without times,
// the resident memory is read again and again, which takes too long for a timed part. On a slow
// machine the first two last until every thread has acted in them.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "interrupt.h"
#include "keel/base/units.h"
#include "keel/measure/process.h"
#include "mem/workload.h"

namespace keel::tools {
namespace {

enum class Phase { kWarm, kTimed, kSampled, kOver };

constexpr std::uint64_t kBehind = 256;
constexpr std::uint64_t kMostLive = 320;
constexpr std::uint64_t kSlots = 512;
constexpr unsigned kSpins = 1000;

// Spins, and gives the CPU away now and then, where threads share it.
template <class Condition>
void wait_until(const Condition& condition) {
  for (unsigned spins = 1; !condition(); ++spins) {
    if (spins % kSpins == 0) {
      std::this_thread::yield();
    }
  }
}

// Counts one thread's acts while the phase is kTimed.
class Watch {
 public:
  explicit Watch(const std::atomic<Phase>& phase) : phase_(phase) {}

  template <class Act>
  auto time(const Act& act) {
    const bool timed =
        phase_.load(std::memory_order_relaxed) == Phase::kTimed;  // Any moment will do.
    if (timed != timed_) [[unlikely]] {
      turn(timed);
    }
    const std::uint64_t start = bench::ticks();
    const auto result = act();
    const std::uint64_t end = bench::ticks();
    if (timed) {
      acts.ticks.add(end - start);
    }
    return result;
  }
  void turn(bool timed) {
    if (timed == timed_) {
      return;
    }
    timed_ = timed;
    const std::uint64_t faults = thread_faults();
    const std::uint64_t now_ns = bench::monotonic_ns();
    if (timed) {
      faults_ = faults;
      start_ns_ = now_ns;
    } else {
      acts.faults = faults - faults_;
      acts.seconds = static_cast<double>(now_ns - start_ns_) * 1e-9;
    }
  }

  Acts acts;

 private:
  const std::atomic<Phase>& phase_;
  bool timed_ = false;
  std::uint64_t faults_ = 0;
  std::uint64_t start_ns_ = 0;
};

// The stores with release pair with the other side's acquire loads of the same number: `pushed_`
// hands a slot over, `freed_` gives it back.
class Pair {
 public:
  Pair(const BufferSource& source, const std::atomic<Phase>& phase, std::uint64_t seed)
      : source_(source), phase_(phase), random_(seed), allocate(phase), release(phase) {}

  void produce() {
    for (std::uint64_t at = 0; phase_.load(std::memory_order_relaxed) != Phase::kOver; ++at) {
      wait_until([&] { return at - freed_.load(std::memory_order_acquire) < kMostLive; });
      const std::size_t bytes = next_size();
      void* buffer = allocate.time([&] { return source_.allocate(bytes); });
      need(buffer, bytes);
      write_pages(buffer, bytes, 64);
      slots_[at % kSlots] = {buffer, bytes};
      made_.fetch_add(bytes, std::memory_order_relaxed);  // A count.
      pushed_.store(at + 1, std::memory_order_release);
    }
    allocate.turn(false);
    over_.store(true, std::memory_order_release);  // After the last `pushed_`.
  }

  void consume() {
    for (std::uint64_t at = 0;; ++at) {
      bool over = false;
      wait_until([&] {
        over = over_.load(std::memory_order_acquire);
        return pushed_.load(std::memory_order_acquire) > at + kBehind || over;
      });
      if (over) {
        break;  // What is left goes with the process.
      }
      const Slot slot = slots_[at % kSlots];
      (void)release.time([&] { return source_.free(slot.buffer), 0; });
      gone_.fetch_add(slot.bytes, std::memory_order_relaxed);  // A count.
      freed_.store(at + 1, std::memory_order_release);
    }
    release.turn(false);
  }

  [[nodiscard]] std::uint64_t pushed() const {
    return pushed_.load(std::memory_order_relaxed);  // A count.
  }
  // Acts of the thread that is behind.
  [[nodiscard]] std::uint64_t acts() const {
    return std::min(pushed(), freed_.load(std::memory_order_relaxed));  // Counts.
  }

  // Bytes asked for and not freed, roughly.
  [[nodiscard]] std::uint64_t live() const {
    const std::uint64_t gone = gone_.load(std::memory_order_relaxed);  // First: never too many.
    return made_.load(std::memory_order_relaxed) - gone;               // Counts.
  }

 private:
  struct Slot {
    void* buffer = nullptr;
    std::size_t bytes = 0;
  };
  std::size_t next_size() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return kPageBytes << (random_ >> 20) % 9;
  }

  const BufferSource& source_;
  const std::atomic<Phase>& phase_;
  std::uint64_t random_;
  std::array<Slot, kSlots> slots_{};
  alignas(64) std::atomic<std::uint64_t> pushed_{0};
  std::atomic<std::uint64_t> made_{0};
  std::atomic<bool> over_{false};
  alignas(64) std::atomic<std::uint64_t> freed_{0};
  std::atomic<std::uint64_t> gone_{0};

 public:
  alignas(64) Watch allocate;
  alignas(64) Watch release;
};

using Pairs = std::vector<std::unique_ptr<Pair>>;

struct Memory {
  std::uint64_t resident = 0;
  std::uint64_t live = 0;
};

std::uint64_t fewest_acts(const Pairs& pairs) {
  std::uint64_t fewest = UINT64_MAX;
  for (const auto& pair : pairs) {
    fewest = std::min(fewest, pair->acts());
  }
  return fewest;
}

std::uint64_t most_acts(const Pairs& pairs) {
  std::uint64_t most = 0;
  for (const auto& pair : pairs) {
    most = std::max(most, pair->pushed());
  }
  return most;
}

// At the end every thread has acted twice since the start, so once within the time.
void pass(const Pairs& pairs, double seconds) {
  const std::uint64_t enough = most_acts(pairs) + 2;
  const Deadline deadline(seconds);
  while (!deadline.passed() || (fewest_acts(pairs) < enough && !Interrupt::came())) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// The largest of each, `before` being what was resident at the start.
Memory sample(const Pairs& pairs, std::uint64_t before, double seconds) {
  Memory most;
  const Deadline deadline(seconds);
  do {
    std::uint64_t live = 0;
    for (const auto& pair : pairs) {
      live += pair->live();
    }
    const std::uint64_t resident = bench::resident_bytes();
    most.live = std::max(most.live, live);
    most.resident = std::max(most.resident, resident > before ? resident - before : 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  } while (!deadline.passed());
  return most;
}

Json rows_of(const BufferSource& source, const Pairs& pairs, const Memory& memory) {
  auto allocate = std::make_unique<Acts>();
  auto release = std::make_unique<Acts>();
  for (const auto& pair : pairs) {
    allocate->merge(pair->allocate.acts);
    release->merge(pair->release.acts);
  }
  Json rows = Json::array({row_of("fifo", "allocate", source.name, *allocate),
                           row_of("fifo", "free", source.name, *release)});
  rows[0]["resident_bytes"] = memory.resident;
  rows[0]["live_bytes"] = memory.live;
  return rows;
}

}  // namespace

Json run_fifo(const BufferSource& source, const BenchPlan& plan) {
  const std::uint64_t before = bench::resident_bytes();
  std::atomic<Phase> phase{Phase::kWarm};
  const auto turn = [&phase](Phase to) { phase.store(to, std::memory_order_relaxed); };
  Pairs pairs;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(plan.threads / 2, 1U); ++i) {
    pairs.push_back(std::make_unique<Pair>(source, phase, 88172645463325252 + i));
    threads.emplace_back([pair = pairs.back().get()] { pair->produce(); });
    threads.emplace_back([pair = pairs.back().get()] { pair->consume(); });
  }
  pass(pairs, plan.seconds * 0.2);
  turn(Phase::kTimed);
  pass(pairs, plan.seconds * 0.6);
  turn(Phase::kSampled);
  const Memory memory = sample(pairs, before, plan.seconds * 0.2);
  turn(Phase::kOver);
  for (std::thread& thread : threads) {
    thread.join();
  }
  return rows_of(source, pairs, memory);
}

}  // namespace keel::tools
