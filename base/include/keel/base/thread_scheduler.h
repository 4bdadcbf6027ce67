// The seam for threads: in debug builds whoever locks, waits, wakes, yields, asks for its CPU,
// starts or ends a thread asks here first. Nothing of it is in release builds.
//
// Two things can be put behind it:
//
//   - a ThreadScheduler, which owns a thread (the one that installs it, and every keel::Thread that
//     is started by an owned one). Owned threads never sleep in the kernel: they sleep in wait(),
//     and the scheduler says who goes on. A simulator lets one run at a time, as a seed draws it;
//   - a hook of points, for all other threads: it may yield or sleep a little, so that orders come
//     up that a machine of few CPUs hardly shows. It changes nothing else.
//
// I1 Locks stay real: an owned thread takes them by trying, and waits here for its next try. So an
//    owned thread and one that is not can share a lock as far as the owned one need not wait.
// I2 Between the look at a state and the wait() for its change nobody else goes on; so no wake is
//    lost that a real futex or condition variable would not lose.
// I3 Only point(), wait() and enter_serial() let another thread go on, so yield_thread() and
//    Thread do.
// Source: the schedulers of FoundationDB's simulation and of loom; PCT (Burckhardt et al. 2010).
#pragma once

#include <cstdint>

namespace keel {

enum class ThreadPoint : std::uint8_t {
  kLock,
  kTryLock,
  kUnlock,
  kCondVar,  // waits on it, as below
  kWaitWord,
  kNotify,
  kYield,
  kStart,
  kJoin,
  kEnd,
  kSerial,  // code with locks of its own, that only one thread at a time may be in
  kIo,
  kSleep,
  kAtomic,
};

class ThreadScheduler {
 public:
  static constexpr std::uint64_t kForever = UINT64_MAX;
  static constexpr std::uint32_t kEverybody = UINT32_MAX;

  ThreadScheduler() = default;
  ThreadScheduler(const ThreadScheduler&) = delete;
  ThreadScheduler& operator=(const ThreadScheduler&) = delete;
  virtual ~ThreadScheduler() = default;

  // All calls are an owned thread's about itself. `detail` is for reports: a lock's rank.
  // Others may go on before the caller does.
  virtual void point(ThreadPoint what, std::uint32_t detail) = 0;
  // Sleeps until a wake() of the same key and one of the bits, or without a reason; false if
  // `deadline_ns` of now_ns() came first.
  virtual bool wait(ThreadPoint what, const void* key, std::uint32_t bits,
                    std::uint64_t deadline_ns) = 0;
  // At most `most` of those who sleep.
  virtual void wake(const void* key, std::uint32_t bits, std::uint32_t most) = 0;
  // Who holds what, for reports.
  virtual void acquired(const void* lock, std::uint32_t detail) = 0;
  virtual void released(const void* lock) = 0;
  [[nodiscard]] virtual std::uint64_t now_ns() = 0;
  // Below possible_cpus().
  [[nodiscard]] virtual unsigned current_cpu() = 0;

  // A thread is going to be started; what the other four take. May throw std::system_error, as
  // the start of a thread may.
  [[nodiscard]] virtual std::uint32_t announce(const char* name) = 0;
  // It could not be.
  virtual void withdraw(std::uint32_t thread) = 0;
  // The first and the last call of the new thread.
  virtual void begin(std::uint32_t thread) = 0;
  virtual void end(std::uint32_t thread) = 0;
  // Returns when that thread has come to end().
  virtual void join(std::uint32_t thread) = 0;

  // Code with locks that are not seen here, of which nobody may wait for one: see SerialScope.
  virtual void enter_serial() = 0;
  virtual void leave_serial() = 0;
};

using ThreadPointHook = void (*)(ThreadPoint what);

#if defined(KEEL_DEBUG)

// Who owns the calling thread; nullptr: the kernel.
[[nodiscard]] ThreadScheduler* thread_scheduler();
// For the calling thread; returns the one before.
ThreadScheduler* set_thread_scheduler(ThreadScheduler* scheduler);
// For the threads that nobody owns; nullptr: none. Returns the one before.
ThreadPointHook set_thread_point_hook(ThreadPointHook hook);
void thread_point(ThreadPoint what, std::uint32_t detail = 0);

// Lets one owned thread at a time into code with locks that the scheduler does not see (a
// library's), which it may leave for a while by waiting in a callback. They nest.
class SerialScope {
 public:
  SerialScope() : scheduler_(thread_scheduler()) {
    if (scheduler_ != nullptr) {
      scheduler_->enter_serial();
    }
  }
  ~SerialScope() {
    if (scheduler_ != nullptr) {
      scheduler_->leave_serial();
    }
  }
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  ThreadScheduler* scheduler_;
};

#else

[[nodiscard]] inline constexpr ThreadScheduler* thread_scheduler() { return nullptr; }
inline void thread_point(ThreadPoint /*what*/, std::uint32_t /*detail*/ = 0) {}

class SerialScope {
 public:
  SerialScope() {}  // NOLINT(*-use-equals-default): or it would be an unused variable
};

#endif

}  // namespace keel
