// What a journal on simulated threads begins with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "probe.h"
#include "support/sim_scheduled_disk.h"

namespace keel_test {

// A disk with an empty log on it, made before there are turns to take.
inline keel::SimSnapshot fresh_log(std::uint64_t seed) {
  keel::SimDisk ground({.seed = seed});
  const keel::ScopedOs scope(ground);
  KEEL_CHECK(keel::create_log(kLogPath, {.size = keel::kMinLogBytes}).ok(), "create");
  return ground.snapshot();
}

// Without a thread of its own.
inline std::unique_ptr<keel::Pool> sim_pool(std::size_t mebibytes) {
  auto pool = keel::Pool::create({.capacity_bytes = mebibytes << 20,
                                  .window_bytes = 4 * mebibytes << 20,
                                  .huge_pages = false,
                                  .background = false});
  KEEL_CHECK(pool.ok(), "pool");
  return std::move(*pool);
}

// A journal on simulated threads, by a simulated clock. (Debug builds have points for it.)
struct ClockedJournal {
  ClockedJournal(const keel::SimSchedule& schedule, keel::JournalConfig config,
                 const keel::SimLatency& latency = {})
      : beginning(fresh_log(schedule.seed)),
        scheduler(schedule),
        disk(scheduler, {.seed = schedule.seed, .virtual_clock = true}, latency) {
    disk.boot_with(beginning, [](const keel::SimSector&) { return keel::SimFate::kKeep; });
    scope.emplace(disk);
    pool = sim_pool(64);
    config.pool = pool.get();
    auto opened = keel::Journal::open(kLogPath, config, kIgnore);
    KEEL_CHECK(opened.ok(), "open");
    journal = std::move(*opened);
  }

  const keel::SimSnapshot beginning;
  keel::SimScheduler scheduler;
  keel::SimScheduledDisk disk;
  std::optional<keel::ScopedOs> scope;
  std::unique_ptr<keel::Pool> pool;
  std::unique_ptr<keel::Journal> journal;
};

}  // namespace keel_test
