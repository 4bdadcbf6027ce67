// SimScheduler: runs real threads one at a time, and a seed says which.
//
//   SimScheduler scheduler(sim_schedule(seed));   // owns the calling thread from here on
//   ...                                           // keel objects and keel::Threads, as ever
//   scheduler.trace().hash()                      // equal for equal seeds
//
// At every point of thread_scheduler.h, and at the I/O of a SimScheduledDisk, the seed may give the
// turn to another thread. Time is virtual: it moves a little with each step, and when nobody can
// run it jumps to the next timed wait. Waits end without a reason now and then, notify_one() picks
// any waiter, and threads move between CPUs, all by the seed.
//
// If nobody can run and nobody waits for a time, that is a deadlock; if the steps run out, a
// livelock. Either prints the seed, what each thread does, and the newest events, and aborts; so
// does every abort while a scheduler lives (a failed KEEL_CHECK).
//
// A wake that is lost is mostly made good by a later one, by a timeout, or by chance, and no test
// sees it. So when nobody can run and no I/O is under way, before the time jumps, those who wait on
// a condition or a word are tried, one by one: woken for no reason, while nothing else runs and no
// time goes by. Who then finds more to do than to wait on for the same should have been woken by
// whoever made it so: a lost wakeup, and the run ends as with a deadlock.
//
// I1 Only the thread whose turn it is runs; all state here is its.
// I2 Whatever is drawn comes from the seed, in the order of steps.
// I3 Points inside a serial region are none, so that what a library does inside (it keeps state of
//    its own from one run to the next) does not count.
// Source: FoundationDB's simulation; PCT (Burckhardt et al., ASPLOS 2010) for the priorities.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "keel/base/thread_scheduler.h"
#include "support/sim_trace.h"

namespace keel {

struct SimSchedule {
  std::uint64_t seed = 1;
  unsigned cpus = 4;  // at most possible_cpus()
  // 0: by chance, one in so many points gives the turn to a thread drawn from all that can run.
  unsigned switch_one_in = 4;
  // Else by priorities (PCT): the highest that can run does, but for so many random moments among
  // the first `change_within` steps at which the running thread becomes the lowest.
  unsigned priority_changes = 0;
  std::uint64_t change_within = 100'000;
  unsigned move_one_in = 32;      // a thread moves to another CPU
  unsigned spurious_one_in = 64;  // a wait ends at once; 0: never
  unsigned try_one_in = 0;        // of such times, who waits is tried; 0: never
  std::uint64_t step_ns = 40;
  std::uint64_t most_steps = 50'000'000;
  unsigned refuse_thread_one_in = 0;  // the start of a thread fails; 0: never
};

// As the seed draws it.
[[nodiscard]] SimSchedule sim_schedule(std::uint64_t seed);

class SimScheduler : public ThreadScheduler {
 public:
  explicit SimScheduler(const SimSchedule& schedule);
  // All other threads have ended and were joined.
  ~SimScheduler() override;

  [[nodiscard]] const SimTrace& trace() const { return trace_; }
  [[nodiscard]] std::uint64_t steps() const { return steps_; }
  [[nodiscard]] std::uint64_t switches() const { return switches_; }
  // Waits that were tried for a lost wakeup.
  [[nodiscard]] std::uint64_t tried() const { return tried_; }
  // Starts of threads that failed.
  [[nodiscard]] std::uint64_t refused() const { return refused_; }
  // A number for the test's own choices.
  std::uint64_t draw();
  // Into the trace. Both texts of static storage.
  void note(const char* what, const char* where, std::uint64_t a = 0, std::uint64_t b = 0);
  // The calling thread does what it was to be woken for. (Seen without it: other waits, I/O, and
  // wakes of others.)
  void works();
  // Others go on for so long.
  void sleep(ThreadPoint what, std::uint64_t duration_ns);
  // Between them the calling thread's points are none; it must not wait. They nest.
  void pause_points() { ++running_points_paused(); }
  void resume_points() { --running_points_paused(); }
  // Prints what is known, and aborts.
  [[noreturn]] void fail(const char* what);
  void print(std::FILE* to, std::size_t events = 60) const;
  // What a replay needs to be told, for reports.
  void set_name(std::string name) { name_ = std::move(name); }

  void point(ThreadPoint what, std::uint32_t detail) override;
  bool wait(ThreadPoint what, const void* key, std::uint32_t bits,
            std::uint64_t deadline_ns) override;
  void wake(const void* key, std::uint32_t bits, std::uint32_t most) override;
  void acquired(const void* lock, std::uint32_t detail) override;
  void released(const void* lock) override;
  [[nodiscard]] std::uint64_t now_ns() override { return now_ns_; }
  [[nodiscard]] unsigned current_cpu() override;
  [[nodiscard]] std::uint32_t announce(const char* name) override;
  void withdraw(std::uint32_t thread) override;
  void begin(std::uint32_t thread) override;
  void end(std::uint32_t thread) override;
  void join(std::uint32_t thread) override;
  void enter_serial() override;
  void leave_serial() override;

 private:
  enum class State : std::uint8_t { kReady, kWaiting, kEnded };
  struct Task;

  [[nodiscard]] unsigned& running_points_paused();
  [[nodiscard]] bool one_in(unsigned n);
  [[nodiscard]] Task& pick();
  void ready_timed_out();
  // Nobody can run: the next to be tried now, nullptr if all were.
  [[nodiscard]] Task* next_to_try();
  // Of a thread that is being tried and does this now.
  void judge_try(ThreadPoint what, const void* key);
  // Gives the turn to whoever is next; returns when it is the caller's again.
  void hand_over();
  void switch_to(Task& next);
  static void wait_for_turn(Task& task);
  void step();

  const SimSchedule schedule_;
  std::string name_;
  std::uint64_t dice_;
  SimTrace trace_;
  std::uint64_t now_ns_ = 1'000'000'000;
  std::uint64_t steps_ = 0;
  std::uint64_t switches_ = 0;
  std::uint64_t tried_ = 0;
  std::uint64_t refused_ = 0;
  std::uint64_t tries_at_ns_ = 0;  // the time at which nobody could run, and who waits is tried
  Task* trying_ = nullptr;         // it runs, and nobody else can
  std::vector<std::uint64_t> changes_;  // steps, descending
  std::int64_t lowest_priority_ = 0;
  static constexpr std::size_t kMostThreads = 64;
  // By id. A thread that is joined leaves its place to the next.
  std::array<std::unique_ptr<Task>, kMostThreads> tasks_;
  std::vector<Task*> live_;   // in the order of their starts
  std::vector<Task*> ready_;  // of pick(), to keep its memory
  Task* running_ = nullptr;
  Task* in_serial_ = nullptr;
  unsigned serial_depth_ = 0;
  ThreadScheduler* before_;
};

}  // namespace keel
