// journal_steady: what does a commit take from the system once everything is warm?
//
// One thread commits objects of 4 KiB, each under a new key, at a pace that the disk can follow
// (50,000 a second), beside a thread that forces every 100 ms. Counted after a warm-up, for the
// committing thread: allocations that its CPU's cache did not serve, page faults, and, by ptrace,
// system calls. Then 1,000 commits are forced with nobody else there, and the allocations from the
// call of force() to its return are counted, of the pool and of metadata.
// Prints one line of JSON. Exit status: 0, 1 if it could not run, 2 for wrong use, 77 if tracing is
// not allowed.

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#include "compare/syscall_tracer.h"
#include "keel/base/os.h"
#include "keel/measure/ticks.h"
#include "log_bench/keel_engine.h"
#include "support/temp_dir.h"

namespace keel::bench {
namespace {

constexpr int kSkipped = 77;
constexpr std::size_t kObjectBytes = 4096;
constexpr double kCommitsPerSecond = 50'000;
constexpr std::uint64_t kForced = 1000;

struct Counts {
  std::uint64_t commits = 0;
  std::uint64_t misses = 0;
  std::uint64_t faults = 0;
  std::uint64_t push_allocations = 0;
};

class CountingOs : public Os {
 public:
  void* metadata_allocate(std::size_t bytes) override {
    allocations_.fetch_add(1, std::memory_order_relaxed);
    return Os::metadata_allocate(bytes);
  }
  [[nodiscard]] std::uint64_t allocations() const {
    return allocations_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> allocations_{0};
};

std::uint64_t misses_of(const PoolStats& stats) {
  return stats.cache_refills + stats.contiguous_allocations + stats.vmalloc_allocations;
}

std::uint64_t allocations_of(const PoolStats& stats) {
  return stats.cache_hits + stats.small_allocations + misses_of(stats);
}

std::uint64_t thread_faults() {
  struct rusage usage {};
  ::getrusage(RUSAGE_THREAD, &usage);
  return static_cast<std::uint64_t>(usage.ru_minflt);
}

// Ends the process unless all is well.
void need(const Status& status) {
  if (!status) {
    std::fprintf(stderr, "journal_steady: %s\n", status.error().message().c_str());
    ::_exit(1);
  }
}

class Forces {
 public:
  explicit Forces(Engine& engine) : thread_([this, &engine] { work(engine); }) {}
  ~Forces() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }
  Forces(const Forces&) = delete;
  Forces& operator=(const Forces&) = delete;

 private:
  void work(Engine& engine) {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(100), [this] { return stopping_; })) {
      lock.unlock();
      need(engine.force());
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

// Waits without a system call.
void commit_paced(Engine& engine, const std::vector<std::byte>& object, std::uint64_t commits) {
  const auto period = static_cast<std::uint64_t>(1e9 / kCommitsPerSecond / ns_per_tick());
  std::uint64_t due = ticks();
  for (std::uint64_t i = 0; i < commits; ++i) {
    while (static_cast<std::int64_t>(ticks() - due) < 0) {
    }
    due += period;
    need(engine.commit(0, i, object.data()));
  }
}

void count_commits(KeelEngine& engine, const std::vector<std::byte>& object, double seconds,
                   Counts& counts) {
  const auto commits = static_cast<std::uint64_t>(seconds * kCommitsPerSecond);
  const Forces forces(engine);
  commit_paced(engine, object, commits);
  const std::uint64_t misses = misses_of(engine.pool().stats());
  const std::uint64_t faults = thread_faults();
  mark_begin();
  commit_paced(engine, object, commits);
  mark_end();
  counts.faults = thread_faults() - faults;
  counts.misses = misses_of(engine.pool().stats()) - misses;
  counts.commits = commits;
}

void count_push(KeelEngine& engine, const CountingOs& counting,
                const std::vector<std::byte>& object, Counts& counts) {
  need(engine.force());
  for (std::uint64_t i = 0; i < kForced; ++i) {
    need(engine.commit(0, i, object.data()));
  }
  const std::uint64_t before = allocations_of(engine.pool().stats()) + counting.allocations();
  need(engine.force());
  counts.push_allocations = allocations_of(engine.pool().stats()) + counting.allocations() - before;
}

// In the traced child.
int run(const std::string& dir, double seconds, Counts& counts) {
  CountingOs counting;
  const ScopedOs scoped(counting);
  EngineConfig config;
  config.dir = dir;
  config.use = EngineUse::kAsync;
  config.object_bytes = kObjectBytes;
  config.log = Bytes(std::uint64_t{256} << 20);
  auto engine = KeelEngine::open(config);
  need(engine ? Status{} : Status{engine.error()});
  const std::vector<std::byte> object(kObjectBytes);
  count_commits(**engine, object, seconds, counts);
  count_push(**engine, counting, object, counts);
  ::_exit(0);  // not closed: nothing of it is wanted
}

int measure(const std::string& dir, double seconds) {
  // The child's counts, seen by the parent.
  void* shared =
      ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    return 1;
  }
  auto* counts = new (shared) Counts;
  (void)ns_per_tick();  // measures itself at its first call
  const auto traced = run_traced([&] { return run(dir, seconds, *counts); });
  if (!traced) {
    std::fprintf(stderr, "journal_steady: %s\n", traced.error().message().c_str());
    return traced.error().code == Errc::kUnsupported ? kSkipped : 1;
  }
  if (traced->exit_status != 0 || counts->commits == 0) {
    return 1;
  }
  const auto each = [counts](std::uint64_t count) {
    return static_cast<double>(count) / static_cast<double>(counts->commits);
  };
  std::printf(
      "{\"commits\": %llu, \"misses\": %.6g, \"faults\": %.6g, \"system_calls\": %.6g, "
      "\"push_allocations\": %llu}\n",
      static_cast<unsigned long long>(counts->commits), each(counts->misses), each(counts->faults),
      each(traced->system_calls), static_cast<unsigned long long>(counts->push_allocations));
  return 0;
}

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) {
  std::string base = "/var/tmp";
  double seconds = 1;
  CLI::App app{"Counts what a warm commit takes from the system, as JSON"};
  app.add_option("--dir", base, "for the log")->type_name("DIR");
  app.add_option("--seconds", seconds, "of the warm-up, and of the count")
      ->check(CLI::Range(0.01, 600.0));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto dir = keel::bench::TempDir::create(base);
  if (!dir) {
    std::fprintf(stderr, "journal_steady: %s\n", dir.error().message().c_str());
    return 1;
  }
  return keel::bench::measure((*dir)->path(), seconds);
}
