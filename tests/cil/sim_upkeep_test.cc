// Who waits for log space while something leaves the log, in all orders in which threads may run.
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/thread.h"
#include "lasting_life.h"
#include "sim_start.h"
#include "support/sim_scheduled_disk.h"
#include "support/sim_seeds.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBytes = 60'000;
constexpr std::uint64_t kLongNs = 20'000'000'000;  // until all that can be done is done
constexpr std::uint64_t kSoonNs = 1'000'000'000;   // no pass comes by itself so soon

void put(Journal& journal, LogItem& item) {
  auto transaction = journal.begin(kBytes, 1);
  KEEL_CHECK(transaction.ok() && transaction->log(item).ok(), "begin");
  const auto sequence = transaction->commit();
  KEEL_CHECK(sequence.ok() && journal.force(*sequence).ok(), "commit");
}

// A journal in which `before` items were recovered, and `now` items live; somebody waits for log
// space, and for an open transaction too. Then `free` makes room, which must be had at once, and
// the transaction is cancelled.
Status wait_while(std::uint64_t seed, std::size_t before, std::size_t now, std::size_t wanted,
                  const std::function<void(Journal&, LogItem&)>& free) {
  std::vector<std::unique_ptr<Lasting>> items;
  const auto make = [&items] {
    items.push_back(std::make_unique<Lasting>(kLastingType));
    items.back()->content = std::string(kBytes, 'x');
    return items.back().get();
  };
  SimDisk ground({.seed = seed});
  SimSnapshot beginning;
  {
    const ScopedOs scope(ground);
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    auto journal = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE(journal.ok());
    for (std::size_t i = 0; i < before; ++i) {
      put(**journal, *make());
    }
    finish(*journal);
    items.clear();
    beginning = ground.snapshot();
  }
  // Few switches: who is woken first need not run first.
  SimScheduler scheduler({.seed = seed,
                          .switch_one_in = seed % 2 == 0 ? 4U : 500U,
                          .spurious_one_in = 0,
                          .try_one_in = 1});
  SimScheduledDisk disk(scheduler, {.seed = seed, .virtual_clock = true}, {});
  disk.boot_with(beginning, [](const SimSector&) { return SimFate::kKeep; });
  const ScopedOs scope(disk);
  const auto pool = sim_pool(64);
  Status status;
  std::uint64_t granted_ns = 0;
  {
    JournalConfig config;
    config.pool = pool.get();
    config.cover_after_ns = 2 * kLongNs;  // longer than anything here
    config.stall_after_ns = UINT64_MAX;
    auto journal = Journal::open(kLogPath, config, kIgnore);
    REQUIRE(journal.ok());
    for (std::size_t i = 0; i < now; ++i) {
      put(**journal, *make());
    }
    if (now != 0) {
      (*journal)->release_recovered();
    }
    std::optional<Transaction> open(std::move(*(*journal)->begin(1000, 1)));
    Thread waiter("waiter", [&] {
      auto transaction = (*journal)->begin(wanted, 1);
      status = transaction.ok() ? Status{} : Status(transaction.error());
      granted_ns = scheduler.now_ns();
    });
    disk.sleep_ns(kLongNs);
    if (now == 0) {
      (*journal)->release_recovered();
    }
    for (const auto& item : items) {
      free(**journal, *item);
    }
    const std::uint64_t freed_ns = scheduler.now_ns();
    open.reset();
    waiter.join();
    CHECK(granted_ns < freed_ns + kSoonNs);
    KEEL_CHECK((*journal)->close().ok(), "close");
    journal->reset();
    items.clear();
  }
  return status;
}

}  // namespace

TEST_CASE("who waits while release_recovered() frees the log is not told that it is full") {
  for_sim_seeds("recovered", 40, [](std::uint64_t seed) {
    CAPTURE(seed);
    CHECK(wait_while(seed, 12, 0, 230'000, [](Journal&, LogItem&) {}).ok());
  });
}

TEST_CASE("who waits while items are released is not told that the log is full") {
  for_sim_seeds("released", 40, [](std::uint64_t seed) {
    CAPTURE(seed);
    // More lives than can be moved out of the way: that has been tried once round the log.
    const Status status = wait_while(
        seed, 0, 10, 230'000, [](Journal& journal, LogItem& item) { (void)journal.release(item); });
    CHECK(status.ok());
  });
}

#endif
