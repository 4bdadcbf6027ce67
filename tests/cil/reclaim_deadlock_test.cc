// Memory reclaim that forces the log, beside commits: the deadlock for which a snapshot's memory is
// made sure of before the context lock. As it is, episodes end; with the allocation moved back
// under the lock the journal hangs, and the watchdog says where.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "debug_switch.h"
#include "keel/alloc/pool.h"
#include "keel/base/os.h"
#include "probe.h"
#include "support/death.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kPoolBytes = std::size_t{8} << 20;
constexpr std::size_t kObjectBytes = 40000;

std::unique_ptr<Pool> make_pool(std::size_t bytes = kPoolBytes) {
  auto pool = Pool::create({.capacity_bytes = bytes});
  if (!pool) {
    FAIL(pool.error().message());
  }
  return std::move(*pool);
}

// A journal that would keep more in memory than the pool has, if nobody made it write.
struct World {
  World() : log({.size = Bytes(128U << 20), .max_checkpoint = Bytes(16U << 20)}) {}
  std::unique_ptr<Journal> open(Pool& pool, JournalConfig config = {}) {
    config.pool = &pool;
    config.depth = 1;
    config.cil_memory = Bytes(std::uint64_t{256} << 20);
    config.push_threshold = Bytes(8U << 20);
    return log.open(config);
  }
  LogWorld log;
};

std::unique_ptr<Probe> make_item(Trace& trace, std::uint32_t id) {
  auto item = std::make_unique<Probe>(trace, id);
  item->regions = {random_bytes(id, kObjectBytes)};
  item->after = Tracking::kRelease;
  return item;
}

// Journals objects of its own until `rounds` commits went through. What a commit does not get, an
// allocation outside of it does, as the pool's shrinkers run there. Returns how often it had to.
std::uint64_t committer(Journal& journal, Pool& pool, Trace& trace, std::uint64_t rounds) {
  std::uint64_t refused = 0;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint64_t i = 0; i < rounds;) {
    items.push_back(make_item(trace, static_cast<std::uint32_t>(i)));
    auto transaction = journal.begin(kObjectBytes + 1000, 1);
    KEEL_CHECK(transaction.ok(), "begin", static_cast<std::uint64_t>(transaction.error().code));
    KEEL_CHECK(transaction->log(*items.back()).ok(), "log");
    const auto committed = transaction->commit();
    if (committed) {
      ++i;
      continue;
    }
    KEEL_CHECK(committed.error().code == Errc::kNoMemory, "commit");
    { const Transaction over = std::move(*transaction); }
    ++refused;
    pool.kvfree(pool.kvmalloc(kObjectBytes, AllocFlags::kNoWarn, "reclaims"));
  }
  KEEL_CHECK(journal.force_all().ok(), "force");
  for (auto& item : items) {
    (void)journal.release(*item);
  }
  while (journal.stats().in_flight != 0) {
    std::this_thread::yield();
  }
  KEEL_CHECK(journal.force_all().ok(), "force");
  return refused;
}

void quiet(const char*) {}

}  // namespace

TEST_CASE("a pool in want gets back what the journal's context holds, by having it written") {
  World world;
  auto pool = make_pool();
  Trace trace;
  auto journal = world.open(*pool);
  const MessageHook before = set_message_hook(quiet);
  const std::uint64_t refused = committer(*journal, *pool, trace, 400);
  set_message_hook(before);
  CHECK(refused > 0);
  CHECK(pool->stats().shrinker_bytes > Bytes(kObjectBytes));
  CHECK(journal->stats().checkpoints > 1);
  finish(journal);
}

TEST_CASE("commits, pushes and reclaim that forces the log end, episode after episode") {
  World world;
  auto pool = make_pool();
  Trace trace;
  auto journal = world.open(*pool);
  const MessageHook before = set_message_hook(quiet);
  std::uint64_t refused = 0;
  const std::uint64_t episodes = test_rounds(1'000, 10);
  std::uint64_t longest_ns = 0;
  for (std::uint64_t episode = 0; episode < episodes; ++episode) {
    const std::uint64_t begun_ns = os().monotonic_ns();
    std::atomic<std::uint64_t> refusals{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] { refusals += committer(*journal, *pool, trace, 80); });
    }
    std::thread pusher([&] {
      while (!done) {
        KEEL_CHECK(journal->force_all().ok(), "force");
        pool->kvfree(pool->kvmalloc(200000, AllocFlags::kNoWarn, "reclaims"));
        std::this_thread::yield();
      }
    });
    for (std::thread& thread : threads) {
      thread.join();
    }
    done = true;
    pusher.join();
    refused += refusals;
    longest_ns = std::max(longest_ns, os().monotonic_ns() - begun_ns);
  }
  set_message_hook(before);
  MESSAGE("episodes: " << episodes << ", the longest of " << longest_ns / 1'000
                       << " us; commits that found no memory: " << refused);
  finish(journal);
  say_tried("pressure", episodes);
}

#if defined(KEEL_DEBUG)
TEST_CASE("with the allocation under the context lock it hangs, and the watchdog says where") {
  World world;  // the child may not use what makes a log: the parent's pool
  const Ending ending = run_in_child([&world] {
    auto pool = make_pool();
    Trace trace;
    JournalConfig config;
    config.stall_after_ns = 300'000'000;
    config.on_stall = [](const StallReport& report) {
      if (report.what == StallReport::What::kCommit) {
        (void)std::fprintf(stderr, "%s\n", report.line);
        ::_exit(7);
      }
    };
    auto journal = world.open(*pool, config);
    set_message_hook(quiet);
    g_allocate_under_context_lock = true;
    (void)committer(*journal, *pool, trace, 2000);
    ::_exit(8);
  });
  CHECK(ending.exit_code == 7);
  CHECK(ending.errors.find("commit stalled") != std::string::npos);
  CHECK(ending.errors.find("(part ") != std::string::npos);
}
#endif
