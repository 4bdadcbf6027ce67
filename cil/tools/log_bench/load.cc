#include "log_bench/load.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "keel/measure/ticks.h"
#include "log_bench/usage.h"

namespace keel::bench {
namespace {

constexpr std::chrono::milliseconds kForcePeriod{100};

struct Name {
  Workload workload;
  const char* text;
};
constexpr std::array<Name, 5> kNames{{{Workload::kW1, "w1"},
                                      {Workload::kW2, "w2"},
                                      {Workload::kW3, "w3"},
                                      {Workload::kW4, "w4"},
                                      {Workload::kW4b, "w4b"}}};

std::uint64_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// What changes hands between the threads of a run. The first error ends it.
class Control {
 public:
  Control(const LoadPlan& plan) : stopped_(plan.stopped) {}

  void fail(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) {
      status_ = error;
    }
    over_.store(true, std::memory_order_relaxed);
  }
  [[nodiscard]] Status status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }
  // Asked before each commit: of a disk that is slow enough a few of them take seconds.
  // Relaxed: nothing is published with it.
  [[nodiscard]] bool over() const {
    return over_.load(std::memory_order_relaxed) || (stopped_ != nullptr && stopped_());
  }

  // The threads begin together, when all have what they need.
  void wait_for_start() { started_.wait(false, std::memory_order_acquire); }
  void start() {
    started_.store(true, std::memory_order_release);  // pairs with wait_for_start()
    started_.notify_all();
  }

 private:
  bool (*const stopped_)();
  std::mutex mutex_;
  Status status_;
  std::atomic<bool> over_{false};
  std::atomic<bool> started_{false};
};

struct ThreadRun {
  std::uint64_t commits = 0;
  Histogram ticks;
};

// Page-aligned memory of random bytes: nothing that could be compressed.
class RandomBytes {
 public:
  explicit RandomBytes(std::size_t bytes)
      : data_(static_cast<std::byte*>(::operator new(bytes, kAlignment))) {
    std::uint64_t random = 88172645463325252;
    for (std::size_t at = 0; at < bytes; at += sizeof random) {
      next_random(random);
      std::memcpy(data_ + at, &random, std::min(sizeof random, bytes - at));
    }
  }
  ~RandomBytes() { ::operator delete(data_, kAlignment); }
  RandomBytes(const RandomBytes&) = delete;
  RandomBytes& operator=(const RandomBytes&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{4096};
  std::byte* const data_;
};

void stamp(std::byte* object, std::size_t object_bytes, std::uint64_t value) {
  std::memcpy(object, &value, std::min(sizeof value, object_bytes));
}

// W1 to W3: one thread's closed loop.
void commit_until_over(Engine& engine, const LoadPlan& plan, Control& control, unsigned thread,
                       ThreadRun& run) {
  const RandomBytes object(plan.object_bytes);
  const bool new_keys = plan.workload == Workload::kW3;
  const auto span = static_cast<std::uint64_t>(plan.seconds * 1e9 / ns_per_tick());
  control.wait_for_start();
  const std::uint64_t start = ticks();
  for (std::uint64_t before = start; before - start < span;) {
    if (control.over()) {
      return;
    }
    const std::uint64_t key = (std::uint64_t{thread} << 48) + (new_keys ? run.commits : 0);
    stamp(object.data(), plan.object_bytes, run.commits);
    if (auto status = engine.commit(thread, key, object.data()); !status) {
      return control.fail(status.error());
    }
    ++run.commits;
    const std::uint64_t now = ticks();
    run.ticks.add(now - before);
    before = now;
  }
}

// W4 and W4b: the updates, by the only thread.
void update_hot_set(Engine& engine, const LoadPlan& plan, Control& control, ThreadRun& run) {
  const RandomBytes objects(plan.objects * plan.object_bytes);
  std::uint64_t random = 88172645463325252;
  control.wait_for_start();
  std::uint64_t before = ticks();
  while (run.commits < plan.updates) {
    if (control.over()) {
      return;
    }
    const std::uint64_t key = next_random(random) % plan.objects;
    std::byte* object = objects.data() + key * plan.object_bytes;
    stamp(object, plan.object_bytes, run.commits);
    if (auto status = engine.commit(0, key, object); !status) {
      return control.fail(status.error());
    }
    ++run.commits;
    const std::uint64_t now = ticks();
    run.ticks.add(now - before);
    before = now;
  }
}

// Forces every 100 ms while it lives.
class BackgroundForces {
 public:
  BackgroundForces(Engine& engine, Control& control)
      : thread_([this, &engine, &control] { work(engine, control); }) {}
  // How many there were.
  std::uint64_t stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
    return forces_;
  }

 private:
  void work(Engine& engine, Control& control) {
    control.wait_for_start();
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, kForcePeriod, [this] { return stopping_; })) {
      lock.unlock();
      if (auto status = engine.force(); !status) {
        control.fail(status.error());
      }
      ++forces_;
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::uint64_t forces_ = 0;  // of the thread, then of who has joined it
  std::thread thread_;        // last: it uses the others
};

// Counters before and after.
class Meter {
 public:
  Meter(const Engine& engine, const LoadPlan& plan)
      : engine_(engine),
        dir_(plan.dir),
        disk_bytes_(device_written_bytes(dir_)),
        log_bytes_(engine.log_bytes()),
        cpu_seconds_(process_cpu_seconds()),
        start_ns_(monotonic_ns()) {}
  void read(LoadResult& result) const {
    result.seconds = seconds();
    result.cpu_seconds = process_cpu_seconds() - cpu_seconds_;
    result.log_bytes = engine_.log_bytes() - log_bytes_;
    if (const auto now = device_written_bytes(dir_); now && disk_bytes_) {
      result.disk_bytes = *now - *disk_bytes_;
    }
  }
  [[nodiscard]] double seconds() const {
    return static_cast<double>(monotonic_ns() - start_ns_) * 1e-9;
  }

 private:
  const Engine& engine_;
  const std::string dir_;
  const std::optional<std::uint64_t> disk_bytes_;
  const std::uint64_t log_bytes_;
  const double cpu_seconds_;
  const std::uint64_t start_ns_;
};

void sum_up(const std::vector<std::unique_ptr<ThreadRun>>& runs, const LoadPlan& plan,
            LoadResult& result) {
  result.slowest_thread = runs.front()->commits;
  for (const auto& run : runs) {
    result.commits += run->commits;
    result.slowest_thread = std::min(result.slowest_thread, run->commits);
    result.fastest_thread = std::max(result.fastest_thread, run->commits);
    result.ticks.merge(run->ticks);
  }
  result.payload_bytes = result.commits * plan.object_bytes;
}

}  // namespace

const char* to_string(Workload workload) {
  return std::find_if(kNames.begin(), kNames.end(),
                      [workload](const Name& name) { return name.workload == workload; })
      ->text;
}

std::optional<Workload> workload_of(const std::string& name) {
  for (const Name& known : kNames) {
    if (name == known.text) {
      return known.workload;
    }
  }
  return std::nullopt;
}

EngineUse use_of(Workload workload) {
  switch (workload) {
    case Workload::kW1:
    case Workload::kW2: return EngineUse::kDurable;
    case Workload::kW3: return EngineUse::kAsync;
    case Workload::kW4:
    case Workload::kW4b: break;
  }
  return EngineUse::kHotSet;
}

std::size_t usual_object_bytes(Workload workload) {
  return workload == Workload::kW1 || workload == Workload::kW3 ? 256 : 4096;
}

Bytes usual_log_bytes(Workload workload) {
  return Bytes(std::uint64_t{workload == Workload::kW3 ? 256U : 64U} << 20);
}

Result<LoadResult> run_load(Engine& engine, const LoadPlan& plan) {
  const EngineUse use = use_of(plan.workload);
  const unsigned threads = use == EngineUse::kHotSet ? 1 : plan.threads;
  (void)ns_per_tick();  // measures itself at its first call
  Control control(plan);
  std::vector<std::unique_ptr<ThreadRun>> runs;
  std::vector<std::thread> workers;
  for (unsigned thread = 0; thread < threads; ++thread) {
    ThreadRun& run = *runs.emplace_back(std::make_unique<ThreadRun>());
    workers.emplace_back([&engine, &plan, &control, &run, thread, use] {
      use == EngineUse::kHotSet ? update_hot_set(engine, plan, control, run)
                                : commit_until_over(engine, plan, control, thread, run);
    });
  }
  std::optional<BackgroundForces> forces;
  if (plan.workload == Workload::kW3 || plan.workload == Workload::kW4b) {
    forces.emplace(engine, control);
  }
  LoadResult result;
  const Meter meter(engine, plan);
  control.start();
  for (std::thread& worker : workers) {
    worker.join();
  }
  result.forces = forces ? forces->stop() : 0;
  if (use != EngineUse::kDurable && control.status().ok()) {
    const double before = meter.seconds();
    if (auto status = engine.force(); !status) {
      control.fail(status.error());
    }
    result.force_seconds = meter.seconds() - before;
    ++result.forces;
  }
  meter.read(result);
  sum_up(runs, plan, result);
  const Status status = control.status();
  return status.ok() ? Result<LoadResult>(std::move(result)) : Result<LoadResult>(status.error());
}

}  // namespace keel::bench
