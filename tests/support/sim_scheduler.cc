#include "support/sim_scheduler.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <system_error>

#include "keel/base/check.h"
#include "keel/base/percpu.h"
#include "support/sim_image.h"

namespace keel {

struct SimScheduler::Task {
  // Lists are made large enough at once: threads come here where they may not allocate.
  static constexpr std::size_t kMostHeld = 64;

  Task() { held.reserve(kMostHeld); }

  struct Held {
    const void* lock;
    std::uint32_t detail;
  };
  std::uint32_t id = 0;
  const char* name = "";
  State state = State::kReady;
  bool ended = false;
  // Of the wait.
  ThreadPoint waits_in = ThreadPoint::kStart;
  const void* key = nullptr;
  std::uint32_t bits = 0;
  std::uint64_t deadline_ns = kForever;
  bool timed_out = false;
  std::uint32_t detail = 0;       // of the newest point
  std::uint64_t tried_at_ns = 0;  // for a lost wakeup
  bool is_condition() const {
    return waits_in == ThreadPoint::kCondVar || waits_in == ThreadPoint::kWaitWord;
  }

  unsigned points_paused = 0;
  unsigned cpu = 0;
  std::int64_t priority = 0;
  std::uint64_t ran_at = 0;  // the step at which it last had, or was last due for, the turn
  std::vector<Held> held;
  // 1: it is this thread's turn. Release by who gives it, acquire by who takes it: all that was
  // done before is seen.
  std::atomic<std::uint32_t> turn{0};
};

namespace {

constexpr std::uint64_t kMostStarvedSteps = 5'000;

// The newest that lives, for the signal handler.
std::atomic<SimScheduler*> g_newest{nullptr};
struct sigaction g_before_abort {};

// The thread that aborts has the turn, or none matters any more.
void print_on_abort(int signal) {
  if (const SimScheduler* scheduler = g_newest.exchange(nullptr); scheduler != nullptr) {
    scheduler->print(stderr);
  }
  (void)::sigaction(signal, &g_before_abort, nullptr);
  (void)::raise(signal);
}

}  // namespace

SimSchedule sim_schedule(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x5c4ed01e5eedU;
  SimSchedule schedule;
  schedule.seed = seed;
  schedule.cpus = 2 + static_cast<unsigned>(sim_random(dice) % 3);
  constexpr unsigned kSwitches[] = {2, 3, 6, 12, 24, 48};
  schedule.switch_one_in = kSwitches[sim_random(dice) % std::size(kSwitches)];
  if (sim_random(dice) % 4 == 0) {
    schedule.switch_one_in = 0;
    schedule.priority_changes = 1 + static_cast<unsigned>(sim_random(dice) % 40);
    schedule.change_within = std::uint64_t{1000} << sim_random(dice) % 8;
  }
  schedule.spurious_one_in = 32U << sim_random(dice) % 5;
  // What wakes for no reason makes good for what was not woken.
  if (sim_random(dice) % 4 != 0) {
    schedule.spurious_one_in = 0;
  }
  schedule.try_one_in = 1 + static_cast<unsigned>(sim_random(dice) % 4);
  return schedule;
}

SimScheduler::SimScheduler(const SimSchedule& schedule)
    : schedule_(schedule), dice_(schedule.seed), before_(nullptr) {
  KEEL_CHECK(schedule.cpus >= 1 && schedule.cpus <= possible_cpus(), "simulated CPUs",
             schedule.cpus, possible_cpus());
  KEEL_CHECK(thread_scheduler() == nullptr, "a simulation inside a simulation");
  for (unsigned i = 0; i < schedule_.priority_changes; ++i) {
    changes_.push_back(draw() % schedule_.change_within);
  }
  live_.reserve(kMostThreads);
  ready_.reserve(kMostThreads);
  std::sort(changes_.begin(), changes_.end(), std::greater<>());
  tasks_[0] = std::make_unique<Task>();
  Task& main = *tasks_[0];
  main.name = "main";
  live_.push_back(&main);
  running_ = &main;
  before_ = set_thread_scheduler(this);
  if (g_newest.exchange(this) == nullptr) {
    struct sigaction action {};
    action.sa_handler = print_on_abort;
    (void)::sigaction(SIGABRT, &action, &g_before_abort);
  }
}

SimScheduler::~SimScheduler() {
  if (SimScheduler* self = this; g_newest.compare_exchange_strong(self, nullptr)) {
    (void)::sigaction(SIGABRT, &g_before_abort, nullptr);
  }
  KEEL_CHECK(live_.size() == 1, "threads outlive their scheduler", live_.size());
  (void)set_thread_scheduler(before_);
}

std::uint64_t SimScheduler::draw() { return sim_random(dice_); }

unsigned& SimScheduler::running_points_paused() { return running_->points_paused; }

bool SimScheduler::one_in(unsigned n) { return n != 0 && draw() % n == 0; }

void SimScheduler::note(const char* what, const char* where, std::uint64_t a, std::uint64_t b) {
  trace_.add({steps_, now_ns_, running_->id, what, where, a, b});
}

void SimScheduler::step() {
  ++steps_;
  now_ns_ += trying_ == nullptr ? schedule_.step_ns : 0;
  if (steps_ > schedule_.most_steps) {
    fail("livelock: the steps have run out");
  }
}

void SimScheduler::point(ThreadPoint what, std::uint32_t detail) {
  Task& self = *running_;
  if (in_serial_ == &self || self.points_paused != 0) {
    return;
  }
  self.detail = detail;
  step();
  if (live_.size() == 1) {
    return;
  }
  if (trying_ != nullptr) {
    if (what == ThreadPoint::kYield || what == ThreadPoint::kIo) {
      judge_try(what, nullptr);
    }
    return;
  }
  trace_.add({steps_, now_ns_, self.id, to_string(what), "", detail, 0});
  if (one_in(schedule_.move_one_in)) {
    self.cpu = static_cast<unsigned>(draw() % schedule_.cpus);
  }
  ready_timed_out();
  if (schedule_.switch_one_in != 0) {
    if (what == ThreadPoint::kYield || one_in(schedule_.switch_one_in)) {
      hand_over();
    }
    return;
  }
  if (what == ThreadPoint::kYield) {
    self.priority = --lowest_priority_;
  }
  while (!changes_.empty() && changes_.back() <= steps_) {
    changes_.pop_back();
    self.priority = --lowest_priority_;
  }
  hand_over();
}

void SimScheduler::ready_timed_out() {
  for (Task* task : live_) {
    if (task->state == State::kWaiting && task->deadline_ns <= now_ns_) {
      task->state = State::kReady;
      task->ran_at = steps_;
      task->timed_out = true;
    }
  }
}

SimScheduler::Task& SimScheduler::pick() {
  Task* overdue = nullptr;
  running_->ran_at = steps_;
  for (;;) {
    ready_timed_out();
    ready_.clear();
    std::uint64_t next_ns = kForever;
    for (Task* task : live_) {
      if (task->state == State::kReady) {
        ready_.push_back(task);
        overdue = overdue == nullptr || task->ran_at < overdue->ran_at ? task : overdue;
      } else {
        next_ns = std::min(next_ns, task->deadline_ns);
      }
    }
    if (!ready_.empty()) {
      break;
    }
    if (Task* tried = next_to_try(); tried != nullptr) {
      return *tried;
    }
    if (next_ns == kForever) {
      fail("deadlock: nobody can run, and nobody waits for a time");
    }
    now_ns_ = next_ns;
  }
  if (schedule_.switch_one_in != 0) {
    return *ready_[ready_.size() == 1 ? 0 : draw() % ready_.size()];
  }
  // Real machines starve nobody for ever.
  if (overdue->ran_at + kMostStarvedSteps < steps_) {
    return *overdue;
  }
  return **std::max_element(ready_.begin(), ready_.end(),
                            [](const Task* a, const Task* b) { return a->priority < b->priority; });
}

SimScheduler::Task* SimScheduler::next_to_try() {
  if (tries_at_ns_ != now_ns_) {
    const bool all_rest = std::none_of(live_.begin(), live_.end(), [](const Task* task) {
      return task->waits_in == ThreadPoint::kIo;
    });
    if (!all_rest || !one_in(schedule_.try_one_in)) {
      return nullptr;
    }
    tries_at_ns_ = now_ns_;
  }
  for (Task* task : live_) {
    if (task->is_condition() && task->tried_at_ns != now_ns_) {
      ++tried_;
      task->tried_at_ns = now_ns_;
      task->state = State::kReady;
      trace_.add({steps_, now_ns_, task->id, "tried", task->name, 0, 0});
      return trying_ = task;
    }
  }
  return nullptr;
}

// A lock that somebody sleeps with tells nothing: then it was a wake without a reason.
void SimScheduler::judge_try(ThreadPoint what, const void* key) {
  const Task& self = *trying_;
  if (what != ThreadPoint::kLock && what != ThreadPoint::kSerial &&
      (what != self.waits_in || key != self.key)) {
    trace_.add({steps_, now_ns_, self.id, "does", to_string(what), 0, 0});
    fail("a lost wakeup: what a thread waited for was so, and nobody had woken it");
  }
}

void SimScheduler::works() {
  if (trying_ != nullptr) {
    judge_try(ThreadPoint::kYield, nullptr);
  }
}

void SimScheduler::hand_over() {
  Task& next = pick();
  if (&next != running_) {
    switch_to(next);
  }
}

void SimScheduler::switch_to(Task& next) {
  Task& self = *running_;
  ++switches_;
  running_ = &next;
  trace_.add({steps_, now_ns_, next.id, "runs", next.name, 0, 0});
  const bool ended = self.ended;
  next.turn.store(1, std::memory_order_release);
  next.turn.notify_one();
  if (!ended) {
    wait_for_turn(self);
  }
}

void SimScheduler::wait_for_turn(Task& task) {
  while (task.turn.load(std::memory_order_acquire) == 0) {
    task.turn.wait(0, std::memory_order_acquire);
  }
  task.turn.store(0, std::memory_order_relaxed);  // Its own, until it gives the turn away.
}

bool SimScheduler::wait(ThreadPoint what, const void* key, std::uint32_t bits,
                        std::uint64_t deadline_ns) {
  Task& self = *running_;
  step();
  trace_.add({steps_, now_ns_, self.id, "waits", to_string(what),
              deadline_ns == kForever ? 0 : deadline_ns, self.detail});
  const bool may_be_spurious = what == ThreadPoint::kCondVar || what == ThreadPoint::kWaitWord;
  const bool tried = trying_ != nullptr;
  if (tried) {
    judge_try(what, key);
    trying_ = nullptr;
    if (what == self.waits_in && key == self.key) {
      deadline_ns = std::min(deadline_ns, self.deadline_ns);  // as if it had gone on waiting
    }
  }
  if (may_be_spurious && !tried && one_in(schedule_.spurious_one_in)) {
    hand_over();
    return true;
  }
  self.waits_in = what;
  self.key = key;
  self.bits = bits;
  self.deadline_ns = deadline_ns;
  self.timed_out = false;
  self.state = State::kWaiting;
  hand_over();
  if (trying_ != &self) {
    self.key = nullptr;
    self.deadline_ns = kForever;
  }
  return !self.timed_out;
}

void SimScheduler::wake(const void* key, std::uint32_t bits, std::uint32_t most) {
  const auto sleeps = [&](const Task* task) {
    return task->state == State::kWaiting && task->key == key && (task->bits & bits) != 0;
  };
  std::uint32_t count =
      static_cast<std::uint32_t>(std::count_if(live_.begin(), live_.end(), sleeps));
  if (trying_ != nullptr && count != 0) {
    const Task* woken = *std::find_if(live_.begin(), live_.end(), sleeps);
    judge_try(woken->waits_in, woken->is_condition() ? nullptr : key);
  }
  for (std::uint32_t left = std::min(most, count); left > 0; --left, --count) {
    auto skip = most >= count ? 0 : draw() % count;
    for (Task* task : live_) {
      if (sleeps(task) && skip-- == 0) {
        task->state = State::kReady;
        task->ran_at = steps_;
        trace_.add({steps_, now_ns_, running_->id, "wakes", task->name, task->id, 0});
        break;
      }
    }
  }
}

void SimScheduler::sleep(ThreadPoint what, std::uint64_t duration_ns) {
  (void)wait(what, nullptr, 0, now_ns_ + duration_ns);
}

void SimScheduler::acquired(const void* lock, std::uint32_t detail) {
  KEEL_CHECK(running_->held.size() < Task::kMostHeld, "too many locks held");
  running_->held.push_back({lock, detail});
}

void SimScheduler::released(const void* lock) {
  std::vector<Task::Held>& held = running_->held;
  for (std::size_t i = held.size(); i-- > 0;) {
    if (held[i].lock == lock) {
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
  }
}

unsigned SimScheduler::current_cpu() { return running_->cpu; }

std::uint32_t SimScheduler::announce(const char* name) {
  if (one_in(schedule_.refuse_thread_one_in)) {
    note("refused", name);
    ++refused_;
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  }
  const auto place = std::find(tasks_.begin(), tasks_.end(), nullptr);
  KEEL_CHECK(place != tasks_.end(), "too many simulated threads", tasks_.size());
  *place = std::make_unique<Task>();
  Task& task = **place;
  task.id = static_cast<std::uint32_t>(place - tasks_.begin());
  task.name = name;
  task.cpu = static_cast<unsigned>(draw() % schedule_.cpus);
  task.priority = static_cast<std::int64_t>(draw() % 1000);
  live_.push_back(&task);
  note("starts", name, task.id, task.cpu);
  return task.id;
}

void SimScheduler::withdraw(std::uint32_t thread) {
  std::erase(live_, tasks_[thread].get());
  tasks_[thread] = nullptr;
}

void SimScheduler::begin(std::uint32_t thread) { wait_for_turn(*tasks_[thread]); }

void SimScheduler::end(std::uint32_t thread) {
  Task& self = *tasks_[thread];
  KEEL_CHECK(running_ == &self && self.held.empty(), "a thread ends with locks held");
  step();
  trace_.add({steps_, now_ns_, self.id, "ends", self.name, 0, 0});
  self.ended = true;
  self.state = State::kEnded;
  std::erase(live_, &self);
  wake(&self, kEverybody, kEverybody);
  switch_to(pick());
}

void SimScheduler::join(std::uint32_t thread) {
  Task& other = *tasks_[thread];
  point(ThreadPoint::kJoin, thread);
  while (!other.ended) {
    (void)wait(ThreadPoint::kJoin, &other, kEverybody, kForever);
  }
  tasks_[thread] = nullptr;
}

void SimScheduler::enter_serial() {
  if (in_serial_ == running_) {
    ++serial_depth_;
    return;
  }
  point(ThreadPoint::kSerial, 0);
  while (in_serial_ != nullptr) {
    (void)wait(ThreadPoint::kSerial, &in_serial_, kEverybody, kForever);
  }
  in_serial_ = running_;
  serial_depth_ = 1;
}

void SimScheduler::leave_serial() {
  if (--serial_depth_ == 0) {
    in_serial_ = nullptr;
    wake(&in_serial_, kEverybody, 1);
  }
}

void SimScheduler::fail(const char* what) {
  (void)std::fprintf(stderr, "simulation: %s\n", what);
  std::abort();
}

void SimScheduler::print(std::FILE* to, std::size_t events) const {
  (void)std::fprintf(
      to, "simulation %s: schedule's seed %llu, step %llu, %llu ns, hash %016llx\n", name_.c_str(),
      static_cast<unsigned long long>(schedule_.seed), static_cast<unsigned long long>(steps_),
      static_cast<unsigned long long>(now_ns_), static_cast<unsigned long long>(trace_.hash()));
  trace_.print(to, events);
  for (const Task* task : live_) {
    (void)std::fprintf(to, "T%-2u %-14s CPU %u  ", task->id, task->name, task->cpu);
    if (task->state == State::kReady) {
      (void)std::fprintf(to, task == running_ ? "runs" : "can run");
    } else {
      (void)std::fprintf(to, "waits in %s (rank %u, %p)", to_string(task->waits_in), task->detail,
                         task->key);
      if (task->deadline_ns != kForever) {
        (void)std::fprintf(to, " until %llu ns",
                           static_cast<unsigned long long>(task->deadline_ns));
      }
    }
    for (const Task::Held& held : task->held) {
      (void)std::fprintf(to, ", holds rank %u (%p)", held.detail, held.lock);
    }
    (void)std::fprintf(to, "%s\n", task == in_serial_ ? ", in serial code" : "");
  }
}

}  // namespace keel
