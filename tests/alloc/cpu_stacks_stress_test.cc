// CpuStacks among threads that are moved, interrupted and stopped: at the end each item is
// somewhere, and there once.
#include <doctest/doctest.h>
#include <sys/time.h>

#include <array>
#include <atomic>
#include <csignal>
#include <optional>
#include <thread>
#include <vector>

#include "cpu_pin.h"
#include "cpu_stacks.h"
#include "support/seeded.h"
#include "support/test_seed.h"

using namespace keel;
using Engine = CpuStacks::Engine;

namespace {

constexpr unsigned kThreads = 4;
constexpr unsigned kItemsEach = 200;
constexpr unsigned kClasses = 3;  // few, so that threads meet

using Items = std::vector<std::uint32_t>;

struct Board {
  CpuStacks stacks;
  std::vector<unsigned> cpus = keel_test::allowed_cpus();
  std::atomic<unsigned> working{kThreads};
};

// Pops and pushes at random; moves to another CPU now and then.
void shuffle(Board& board, Items& mine, std::uint64_t seed, std::uint64_t steps) {
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < steps; ++i) {
    const std::uint64_t draw = random();
    const auto of = static_cast<unsigned>(draw % kClasses);
    if ((draw >> 8) % 2 == 0) {
      const std::uint32_t item = board.stacks.pop(of);
      if (item != CpuStacks::kNone) {
        mine.push_back(item);
      }
    } else if (!mine.empty() && board.stacks.push(of, mine.back())) {
      mine.pop_back();
    }
    if ((draw >> 16) % 512 == 0) {
      keel_test::pin_to(board.cpus[(draw >> 32) % board.cpus.size()]);
    }
  }
  --board.working;
}

// Stops one CPU after the other and takes some of its oldest items, until all others are done.
void stop_and_take(Board& board, Items& taken) {
  while (board.working != 0) {
    for (const unsigned cpu : board.cpus) {
      CpuStacks::Stopped stopped(board.stacks, cpu);
      for (unsigned c = 0; c < kClasses; ++c) {
        const unsigned before = stopped.count(c);
        if (before > CpuStacks::kDepth / 2) {
          taken.push_back(stopped.take_oldest(c));
          CHECK(stopped.count(c) == before - 1);
        }
      }
    }
    while (!taken.empty() && board.stacks.push(0, taken.back())) {
      taken.pop_back();
    }
    std::this_thread::yield();
  }
}

void collect(Board& board, Items& into) {
  for (unsigned cpu = 0; cpu < board.stacks.cpus(); ++cpu) {
    CpuStacks::Stopped stopped(board.stacks, cpu);
    for (unsigned c = 0; c < kClasses; ++c) {
      for (std::uint32_t item; (item = stopped.take_oldest(c)) != CpuStacks::kNone;) {
        into.push_back(item);
      }
    }
  }
}

// The signal's handler takes an item and puts it back, in the middle of whatever it interrupts.
std::atomic<CpuStacks*> g_interrupted{nullptr};
std::array<std::atomic<std::uint32_t>, 4096> g_stranded;  // that it could not put back
std::atomic<unsigned> g_stranded_count{0};
std::atomic<unsigned> g_signals{0};

void on_alarm(int) {
  CpuStacks* stacks = g_interrupted.load();
  g_signals.fetch_add(1);
  if (stacks == nullptr || g_stranded_count.load() + kThreads + 1 >= g_stranded.size()) {
    return;
  }
  const std::uint32_t item = stacks->pop(0);
  if (item != CpuStacks::kNone && !stacks->push(0, item)) {
    g_stranded[g_stranded_count.fetch_add(1)] = item;
  }
}

// SIGALRM every few microseconds while it lives, on whichever thread runs.
class Alarms {
 public:
  explicit Alarms(CpuStacks& stacks) {
    g_stranded_count = 0;
    g_signals = 0;
    g_interrupted = &stacks;
    struct sigaction action {};
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    (void)::sigaction(SIGALRM, &action, &before_);
    set_timer(50);
  }
  ~Alarms() {
    set_timer(0);
    (void)::sigaction(SIGALRM, &before_, nullptr);
    g_interrupted = nullptr;
  }
  Alarms(const Alarms&) = delete;
  Alarms& operator=(const Alarms&) = delete;

 private:
  static void set_timer(long us) {
    const struct itimerval every {
      {0, us}, { 0, us }
    };
    (void)::setitimer(ITIMER_REAL, &every, nullptr);
  }
  struct sigaction before_ {};
};

void check_each_once(const Items& found) {
  std::vector<unsigned> seen(kThreads * kItemsEach, 0);
  for (const std::uint32_t item : found) {
    REQUIRE(item < seen.size());
    ++seen[item];
  }
  for (std::size_t item = 0; item < seen.size(); ++item) {
    CAPTURE(item);
    REQUIRE(seen[item] == 1);
  }
}

void run(Engine engine, bool with_signals, std::uint64_t steps) {
  keel_test::Seeded seeded("CPU stacks stress");
  const keel_test::Pinned unpins_at_the_end;
  Board board;
  REQUIRE(board.stacks.open(engine).ok());
  for (unsigned cpu = 0; cpu < board.stacks.cpus(); ++cpu) {
    for (unsigned c = 0; c < kClasses; ++c) {
      board.stacks.set_limit(cpu, c, CpuStacks::kDepth);
    }
  }
  std::array<Items, kThreads + 1> bags;
  std::vector<std::thread> threads;
  {
    const std::optional<Alarms> alarms =
        with_signals ? std::optional<Alarms>(std::in_place, board.stacks) : std::nullopt;
    for (unsigned t = 0; t < kThreads; ++t) {
      for (unsigned i = 0; i < kItemsEach; ++i) {
        bags[t].push_back(t * kItemsEach + i);
      }
      threads.emplace_back([&board, &bag = bags[t], seed = seeded(~std::uint64_t{0}), steps] {
        shuffle(board, bag, seed, steps);
      });
    }
    stop_and_take(board, bags[kThreads]);
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
  Items found;
  collect(board, found);
  for (const Items& bag : bags) {
    found.insert(found.end(), bag.begin(), bag.end());
  }
  for (unsigned i = 0; with_signals && i < g_stranded_count; ++i) {
    found.push_back(g_stranded[i]);
  }
  CHECK((!with_signals || g_signals > 10));
  check_each_once(found);
}

}  // namespace

TEST_CASE("threads that are moved between CPUs lose and double nothing, with either engine") {
  for (const Engine engine : {Engine::kBest, Engine::kLocked}) {
    CAPTURE(static_cast<int>(engine));
    run(engine, false, keel_test::test_rounds(400'000, 20'000));
  }
}

TEST_CASE("threads that signals interrupt within a push or pop lose and double nothing") {
  for (const Engine engine : {Engine::kBest, Engine::kLocked}) {
    CAPTURE(static_cast<int>(engine));
    run(engine, true, keel_test::test_rounds(1'000'000, 40'000));
  }
}
