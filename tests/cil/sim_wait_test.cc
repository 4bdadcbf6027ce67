// What threads of a journal cost while they wait, counted in steps of a simulation; and what its
// watchdog says of that, by a clock that the simulation alone moves.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/base/thread.h"
#include "keel/cil/object_item.h"
#include "probe.h"
#include "sim_start.h"
#include "support/sim_scheduled_disk.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using namespace keel_test;

namespace {

struct Cost {
  std::uint64_t steps = 0;
  std::uint64_t virtual_ns = 0;
};

// Threads that commit as fast as they may, against a disk of a second for each flush.
Cost commit_on_slow_disk(const JournalConfig& settings, std::uint64_t seed) {
  const SimSnapshot beginning = fresh_log(seed);
  SimScheduler scheduler(
      {.seed = seed, .spurious_one_in = 0, .try_one_in = 1, .most_steps = 500'000});
  SimScheduledDisk disk(scheduler, {.seed = seed, .virtual_clock = true},
                        {.flush_ns = 1'000'000'000});
  disk.boot_with(beginning, [](const SimSector&) { return SimFate::kKeep; });
  const ScopedOs scope(disk);
  const auto pool = sim_pool(64);
  Cost cost;
  {
    JournalConfig config = settings;
    config.pool = pool.get();
    config.stall_after_ns = UINT64_MAX;
    auto journal = Journal::open(kLogPath, config, kIgnore);
    REQUIRE(journal.ok());
    std::vector<std::unique_ptr<ObjectItem>> items;
    std::vector<Thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
      ObjectItem& item = *items.emplace_back(std::make_unique<ObjectItem>(t));
      threads.emplace_back("committer", [&journal, &item] {
        const std::string bytes(30'000, 'x');
        for (int i = 0; i < 20; ++i) {
          item.set(bytes.data(), bytes.size());
          auto transaction = (*journal)->begin(ObjectItem::log_bytes(bytes.size()), 1);
          KEEL_CHECK(transaction.ok() && transaction->log(item).ok(), "begin");
          const auto sequence = transaction->commit();
          KEEL_CHECK(sequence.ok(), "commit");
          if (i % 8 == 7) {
            KEEL_CHECK((*journal)->force(*sequence).ok(), "force");
          }
        }
      });
    }
    for (Thread& thread : threads) {
      thread.join();
    }
    KEEL_CHECK((*journal)->close().ok(), "close");
    journal->reset();
  }
  cost.steps = scheduler.steps();
  cost.virtual_ns = scheduler.now_ns();
  return cost;
}

}  // namespace

TEST_CASE("who waits for a slow disk sleeps, whether for log space or for memory") {
  for (const std::uint64_t memory : {std::uint64_t{0}, std::uint64_t{400'000}}) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      JournalConfig config;
      config.depth = 1;
      config.cil_memory = Bytes(memory);
      const Cost cost = commit_on_slow_disk(config, seed);
      CAPTURE(memory);
      CAPTURE(seed);
      MESSAGE("steps: ", cost.steps, ", virtual seconds: ", cost.virtual_ns / 1'000'000'000);
      // A step takes 40 ns: a thread that span through a second would take 25 million.
      CHECK(cost.steps < 500'000);
    }
  }
}

namespace {

constexpr std::uint64_t kDeadlineNs = 10'000'000'000;

// How many stalls the watchdog of a journal on simulated threads reports.
struct WatchedWorld {
  WatchedWorld(std::uint64_t seed, const SimLatency& latency)
      : world({.seed = seed, .spurious_one_in = 0, .try_one_in = 1}, config(), latency),
        journal(world.journal) {}
  [[nodiscard]] JournalConfig config() {
    JournalConfig config;
    config.cover_after_ns = UINT64_MAX / 4;
    config.stall_after_ns = kDeadlineNs;
    config.on_stall = [this](const StallReport& report) {
      ++(report.what == StallReport::What::kClose ? of_close : of_others);
    };
    return config;
  }

  int of_close = 0;
  int of_others = 0;
  ClockedJournal world;
  std::unique_ptr<Journal>& journal;
};

}  // namespace

// A write takes up to eight seconds, and who forces waits for two.
TEST_CASE(
    "a force behind one that becomes stable meanwhile is not reported, however long it takes") {
  std::uint64_t longest_ns = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    WatchedWorld world(seed, {.write_ns = 4'000'000'000});
    Journal& journal = *world.journal;
    Trace trace;
    Probe item(trace, 1);
    item.regions = {"x"};
    item.after = Tracking::kRelease;
    for (int i = 0; i < 20; ++i) {
      // Written by a worker; nobody waits for it.
      const Sequence before = commit(journal, {&item});
      (void)journal.force(before, 1'000'000);
      const std::uint64_t begun_ns = world.world.scheduler.now_ns();
      REQUIRE(journal.force(commit(journal, {&item})).ok());
      longest_ns = std::max(longest_ns, world.world.scheduler.now_ns() - begun_ns);
    }
    REQUIRE(journal.close().ok());
    world.journal.reset();
    CAPTURE(seed);
    CHECK(world.of_others == 0);  // Of the close there is one for all that it writes.
  }
  CHECK(longest_ns > kDeadlineNs + kDeadlineNs / 4);
}

TEST_CASE("a close is not reported while callbacks end and items leave, however many there are") {
  constexpr std::uint64_t kEachNs = 4'000'000'000;
  class Slow : public Probe {
   public:
    using Probe::Probe;

   protected:
    void release(bool aborted) override {
      os().sleep_ns(kEachNs);
      Probe::release(aborted);
    }
  };
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    WatchedWorld world(seed, {});
    Journal& journal = *world.journal;
    Trace trace;
    std::vector<std::unique_ptr<Slow>> items;
    int called = 0;
    for (std::uint32_t id = 0; id < 8; ++id) {
      items.push_back(std::make_unique<Slow>(trace, id));
      items.back()->regions = {"x"};
      const Sequence sequence = commit(journal, {items.back().get()});
      const Status asked = journal.on_stable(sequence, [&called](const Status&) {
        os().sleep_ns(kEachNs);
        ++called;
      });
      REQUIRE(asked.ok());
    }
    REQUIRE(journal.close().ok());
    world.journal.reset();
    CAPTURE(seed);
    CHECK(called == 8);
    CHECK(trace.count(Call::kRelease) == 8);
    CHECK(world.of_close == 0);
  }
}

#endif
