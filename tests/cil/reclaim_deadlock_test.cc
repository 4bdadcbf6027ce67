// Memory reclaim that forces the log, beside commits: the deadlock for which a snapshot's memory is
// made sure of before the context lock. As it is, episodes end, in a campaign each within a second,
// and from the switch of contexts until the checkpoint is stable nothing is allocated; with the
// allocation moved back under the lock the journal hangs, and the watchdog says where.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ail.h"
#include "debug_switch.h"
#include "keel/alloc/pool.h"
#include "keel/base/os.h"
#include "keel/base/scopes.h"
#include "probe.h"
#include "support/campaign.h"
#include "support/death.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kPoolBytes = std::size_t{8} << 20;
constexpr std::size_t kObjectBytes = 40000;
constexpr std::uint64_t kMostNs = 1'000'000'000;  // of an episode

std::unique_ptr<Pool> make_pool(std::size_t bytes = kPoolBytes, bool background = true) {
  auto pool = Pool::create({.capacity_bytes = bytes, .background = background});
  if (!pool) {
    FAIL(pool.error().message());
  }
  return std::move(*pool);
}

// While it lives, what is allocated in a NoAllocScope is counted instead of aborting: metadata and
// the pool's memory, which are refused, and what operator new gives. What the simulated disk takes
// for itself, and a push for the items' bucket before it switches contexts, do not count.
class AllocationCount {
 public:
  AllocationCount() : before_(set_bug_handler(count)) {}
  ~AllocationCount() { set_bug_handler(before_); }
  AllocationCount(const AllocationCount&) = delete;
  AllocationCount& operator=(const AllocationCount&) = delete;

  struct Exempt {
    Exempt() { ++exempt_; }
    ~Exempt() { --exempt_; }
    Exempt(const Exempt&) = delete;
    Exempt& operator=(const Exempt&) = delete;
  };
  // One at a time, of all threads.
  [[nodiscard]] static std::uint64_t counted() { return counted_; }

 private:
  static void count(const BugReport& report) {
    if (report.bug != Bug::kAllocationInNoAllocScope) {
      abort_on_bug(report);
    }
    counted_ += exempt_ == 0 ? 1 : 0;
  }

  BugHandler before_;
  static inline std::atomic<std::uint64_t> counted_{0};
  static inline thread_local int exempt_ = 0;
};

// Writes of threads that may not allocate are counted.
class WatchedDisk : public SimDisk {
 public:
  [[nodiscard]] std::uint64_t watched_writes() const { return watched_writes_; }

  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    watched_writes_ += NoAllocScope::active() ? 1 : 0;
    const AllocationCount::Exempt exempt;
    return SimDisk::pwritev2(fd, parts, count, offset, flags);
  }
  int fdatasync(int fd) override {
    const AllocationCount::Exempt exempt;
    return SimDisk::fdatasync(fd);
  }
  int ring_submit(OsRing* ring, const RingWrite& write) override {
    watched_writes_ += NoAllocScope::active() ? 1 : 0;
    const AllocationCount::Exempt exempt;
    return SimDisk::ring_submit(ring, write);
  }
  int ring_wait(OsRing* ring, bool block, RingDone* out) override {
    const AllocationCount::Exempt exempt;
    return SimDisk::ring_wait(ring, block, out);
  }
  // Os frees what is of malloc.
  void* metadata_allocate(std::size_t bytes) override {
    const bool is_bucket = bytes == sizeof(Bucket) && NoAllocScope::active();
    return is_bucket ? std::malloc(bytes) : SimDisk::metadata_allocate(bytes);
  }

 private:
  std::atomic<std::uint64_t> watched_writes_{0};
};

// A journal that would keep more in memory than the pool has, if nobody made it write.
struct World {
  World() {
    REQUIRE(
        create_log(kLogPath, {.size = Bytes(128U << 20), .max_checkpoint = Bytes(16U << 20)}).ok());
  }
  static std::unique_ptr<Journal> open(Pool& pool, JournalConfig config = {}) {
    config.pool = &pool;
    config.depth = 1;
    config.cil_memory = Bytes(std::uint64_t{256} << 20);
    config.push_threshold = Bytes(8U << 20);
    auto journal = Journal::open(kLogPath, config, kIgnore);
    REQUIRE(journal.ok());
    return std::move(*journal);
  }
  WatchedDisk disk;
  ScopedOs scope{disk};
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

// How long this thread has been ready to run and had no CPU: others' doing. 0 if nobody tells.
std::uint64_t waited_for_cpu_ns() {
  std::uint64_t ran_ns = 0, waited_ns = 0;
  std::ifstream("/proc/thread-self/schedstat") >> ran_ns >> waited_ns;
  return waited_ns;
}

}  // namespace

TEST_CASE("a pool in want gets back what the journal's context holds, by having it written") {
  World world;
  auto pool = make_pool();
  Trace trace;
  auto journal = world.open(*pool);
  const MessageHook before = set_message_hook(quiet);
  // How fast the upkeep frees memory is not ours to say: until it was too slow once.
  std::uint64_t refused = 0;
  for (int pass = 0; pass < 100 && refused == 0; ++pass) {
    refused = committer(*journal, *pool, trace, 400);
  }
  set_message_hook(before);
  CHECK(refused > 0);
  CHECK(pool->stats().shrinker_bytes > Bytes(kObjectBytes));
  CHECK(journal->stats().checkpoints > 1);
  finish(journal);
}

TEST_CASE("a push allocates nothing from its switch of contexts until the checkpoint is stable") {
  World world;
  auto pool = make_pool(std::size_t{64} << 20);
  Trace trace;
  auto journal = world.open(*pool, {.cover_after_ns = UINT64_MAX / 4});
  const std::uint64_t counted = AllocationCount::counted();
  // From one write to several at once.
  for (const std::size_t bytes : {1U, 5'000U, 100'000U, 700'000U, 3'000'000U, 6'000'000U}) {
    CAPTURE(bytes);
    Probe item(trace, 1);
    item.regions = {random_bytes(bytes, bytes)};
    item.after = Tracking::kRelease;
    Sequence sequence = commit(*journal, {&item}, bytes + 1000);
    const std::uint64_t writes = world.disk.watched_writes();
    {
      const AllocationCount count;
      const NoAllocScope scope;
      // Of so quiet a journal the thread that forces does the push.
      CHECK(journal->force(sequence).ok());
    }
    CHECK(world.disk.watched_writes() > writes);
    CHECK(AllocationCount::counted() == counted);
  }
  finish(journal);
}

TEST_CASE("commits, pushes and reclaim that forces the log end, episode after episode") {
  World world;
  auto pool = make_pool();
  Trace trace;
  auto journal = world.open(*pool);
  const MessageHook before = set_message_hook(quiet);
  std::uint64_t refused = 0, episodes = 0, longest_ns = 0;
  const std::uint64_t counted = AllocationCount::counted();
  const AllocationCount count;
  Campaign campaign("pressure", 10'000, {1'000, 10});
  campaign.run([&](std::uint64_t /*episode*/) -> std::string {
    const std::uint64_t begun_ns = os().monotonic_ns();
    std::atomic<std::uint64_t> refusals{0}, waited_ns{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        refusals += committer(*journal, *pool, trace, 80);
        waited_ns += waited_for_cpu_ns();
      });
    }
    std::thread pusher([&] {
      while (!done) {
        {
          const NoAllocScope scope;
          KEEL_CHECK(journal->force_all().ok(), "force");
        }
        pool->kvfree(pool->kvmalloc(200000, AllocFlags::kNoWarn, "reclaims"));
        std::this_thread::yield();
      }
      waited_ns += waited_for_cpu_ns();
    });
    for (std::thread& thread : threads) {
      thread.join();
    }
    done = true;
    pusher.join();
    refused += refusals;
    ++episodes;
    world.disk.clear_io_log();
    const std::uint64_t took_ns = os().monotonic_ns() - begun_ns;
    longest_ns = std::max(longest_ns, took_ns);
    const std::uint64_t allocations = AllocationCount::counted() - counted;
    campaign.note("longest_us=" + std::to_string(longest_ns / 1'000) +
                  " refused=" + std::to_string(refused) +
                  " watched_writes=" + std::to_string(world.disk.watched_writes()) +
                  " allocations=" + std::to_string(allocations));
    if (allocations != 0) {
      return "allocations between a switch of contexts and stable: " + std::to_string(allocations);
    }
    // Without what a busy machine makes of it.
    if (campaign.full() && took_ns >= kMostNs + waited_ns) {
      return "an episode of " + std::to_string(took_ns / 1'000) + " us, for a CPU " +
             std::to_string(waited_ns / 1'000);
    }
    return {};
  });
  set_message_hook(before);
  CHECK((episodes < 100 || refused > 0));
  CHECK((episodes < 100 || world.disk.watched_writes() > 0));
  finish(journal);
}

#if defined(KEEL_DEBUG)
TEST_CASE("with the allocation under the context lock it hangs, and the watchdog says where") {
  World world;  // the child may not use what makes a log: the parent's pool
  const Ending ending = run_in_child([&world] {
    // Without the thread that frees ahead, and on a machine of many CPUs always in time: a commit
    // itself reclaims.
    auto pool = make_pool(kPoolBytes, /*background=*/false);
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
