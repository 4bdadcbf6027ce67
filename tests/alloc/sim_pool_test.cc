// Pools in simulated worlds: threads that allocate, free what others allocated, resize, reclaim and
// trim, with a pool's own thread beside them, all by one seed (support/sim_scheduler.h). What a
// buffer holds must be what its owner wrote; at the end the audit passes.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "keel/base/percpu.h"
#include "keel/base/thread.h"
#include "shrinkers.h"
#include "support/lock_counts.h"
#include "support/sim_scheduled_disk.h"
#include "support/test_seed.h"
#include "support/tried.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using keel_test::LockCounts;
using keel_test::setting;
using keel_test::test_rounds;
using keel_test::test_seed;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Buffer {
  unsigned char* address = nullptr;
  std::size_t size = 0;
  unsigned char fill = 0;
};

// Buffers on their way from thread to thread.
struct Exchange {
  Mutex mutex{LockRank::kJournalClose};  // outside of all the pool's
  std::vector<Buffer> buffers;
};

std::size_t draw_size(std::uint64_t& dice) {
  switch (sim_random(dice) % 8) {
    case 0: return 1 + sim_random(dice) % 64;
    case 1:
    case 2: return 1 + sim_random(dice) % 4096;
    case 3: return 4096U << sim_random(dice) % 5;
    case 4: return 1 + sim_random(dice) % (512 * 1024);
    default: return 1 + sim_random(dice) % 60'000;
  }
}

void check_filled(const Buffer& buffer) {
  for (std::size_t i = 0; i < buffer.size; i += i < 64 || buffer.size - i < 65 ? 1 : 509) {
    KEEL_CHECK(buffer.address[i] == buffer.fill, "a buffer that somebody else wrote to", i,
               buffer.size);
  }
}

void free_one(Pool& pool, const Buffer& buffer, std::uint64_t& dice) {
  check_filled(buffer);
  if (sim_random(dice) % 2 == 0) {
    pool.kvfree_sized(buffer.address, buffer.size);
  } else {
    pool.kvfree(buffer.address);
  }
}

void use_pool(Pool& pool, Exchange& exchange, std::uint64_t dice, unsigned acts) {
  std::vector<Buffer> mine;
  for (unsigned i = 0; i < acts; ++i) {
    const std::uint64_t draw = sim_random(dice) % 100;
    if (draw < 45) {
      Buffer buffer{.size = draw_size(dice), .fill = static_cast<unsigned char>(dice)};
      const AllocFlags flags = draw % 4 == 0 ? AllocFlags::kNoWait : AllocFlags::kKernel;
      buffer.address =
          static_cast<unsigned char*>(pool.kvmalloc(buffer.size, flags | AllocFlags::kNoWarn));
      if (buffer.address != nullptr) {
        std::memset(buffer.address, buffer.fill, buffer.size);
        mine.push_back(buffer);
      }
    } else if (draw < 75 && !mine.empty()) {
      std::swap(mine[sim_random(dice) % mine.size()], mine.back());
      free_one(pool, mine.back(), dice);
      mine.pop_back();
    } else if (draw < 96 && !mine.empty()) {
      // Somebody else frees it.
      Buffer taken;
      {
        MutexLock lock(exchange.mutex);
        exchange.buffers.push_back(mine.back());
        std::swap(exchange.buffers[sim_random(dice) % exchange.buffers.size()],
                  exchange.buffers.back());
        taken = exchange.buffers.back();
        exchange.buffers.pop_back();
        if (exchange.buffers.size() < 16) {
          exchange.buffers.push_back(taken);
          taken = {};
        }
      }
      mine.pop_back();
      if (taken.address != nullptr) {
        free_one(pool, taken, dice);
      }
    } else if (draw == 96) {
      pool.purge();
    } else if (draw == 97) {
      (void)pool.trim();
    } else if (draw == 98) {
      pool.upkeep();
    } else {
      os().sleep_ns(sim_random(dice) % 300'000'000);
    }
  }
  for (const Buffer& buffer : mine) {
    free_one(pool, buffer, dice);
  }
}

struct Outcome {
  std::uint64_t hash = 0;
  std::uint64_t steps = 0;
};

Outcome run_world(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x9001;
  SimScheduler scheduler(sim_schedule(sim_random(dice)));
  scheduler.set_name("of a pool, KEEL_TEST_SEED=" + std::to_string(seed));
  SimScheduledDisk disk(scheduler, {.seed = seed, .virtual_clock = true}, {});
  const ScopedOs scope(disk);
  Outcome result;
  {
    const std::size_t capacity = (4 + sim_random(dice) % 12) * kMiB;
    auto created = Pool::create({.capacity_bytes = capacity,
                                 .window_bytes = (8 + sim_random(dice) % 64) * kMiB,
                                 .huge_pages = false,
                                 .background = sim_random(dice) % 4 != 0});
    KEEL_CHECK(created.ok(), "a pool");
    Pool& pool = **created;
    Exchange exchange;
    std::vector<Thread> threads;
    const std::uint64_t count = 2 + sim_random(dice) % 4;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t own = sim_random(dice);
      threads.emplace_back("user", [&pool, &exchange, own] { use_pool(pool, exchange, own, 60); });
    }
    for (Thread& thread : threads) {
      thread.join();
    }
    for (const Buffer& buffer : exchange.buffers) {
      free_one(pool, buffer, dice);
    }
    pool.audit();
  }
  result.hash = scheduler.trace().hash();
  result.steps = scheduler.steps();
  return result;
}

// A pool on simulated threads: its disk in force, and `name` said of what goes wrong.
template <class Disk = SimScheduledDisk, class Scheduler = SimScheduler>
struct SimPool {
  SimPool(std::string name, std::uint64_t seed, const SimSchedule& schedule,
          const PoolConfig& config)
      : scheduler(schedule), disk(scheduler, {.seed = seed, .virtual_clock = true}, {}) {
    scheduler.set_name(std::move(name));
    auto created = Pool::create(config);
    KEEL_CHECK(created.ok(), "a pool");
    pool = std::move(*created);
  }

  Scheduler scheduler;
  Disk disk;
  const ScopedOs scope{disk};
  std::unique_ptr<Pool> pool;
};

// One thread frees the only buffer that can be had, another asks for it in another size and finds
// nothing, or not. Whether somebody who asks afterwards gets it.
bool free_beside_a_pass(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0xf4ee;
  const SimPool<> world(
      "of a free beside a pass, KEEL_TEST_SEED=" + std::to_string(seed), seed,
      sim_schedule(sim_random(dice)),

      {.capacity_bytes = kMiB / 4, .window_bytes = kMiB, .huge_pages = false, .background = false});
  Pool& pool = *world.pool;
  void* only = pool.kvmalloc(30 * kPageBytes);
  void* rest = pool.kvmalloc(34 * kPageBytes);
  KEEL_CHECK(only != nullptr && rest != nullptr, "buffers of a new pool");
  constexpr std::size_t kWanted = 20 * kPageBytes;
  void* got = nullptr;
  Thread frees("frees", [&] { pool.kvfree(only); });
  Thread asks("asks", [&] { got = pool.kvmalloc(kWanted, AllocFlags::kNoWarn); });
  frees.join();
  asks.join();
  if (got == nullptr) {
    got = pool.kvmalloc(kWanted, AllocFlags::kNoWarn);
  }
  pool.kvfree(got);
  pool.kvfree(rest);
  pool.audit();
  return got != nullptr;
}

// So many steps of the calling thread's.
void dally(std::uint64_t steps) {
  Mutex mutex{LockRank::kLeaf};
  for (std::uint64_t i = 0; i < steps; i += 2) {
    MutexLock lock(mutex);
  }
}
constexpr std::uint64_t kStepsToPass = 200;  // of a request, until its pass is over

// Half of a pool lies idle when one thread takes a buffer from the cache, which has all of them in
// its hands meanwhile, and another asks for a larger one, which only a pass can bring. Whether
// somebody who asks for that afterwards gets it.
bool take_beside_a_pass(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x7a4e;
  constexpr std::size_t kCapacity = 4 * kMiB;
  constexpr std::size_t kSize = kCapacity / 8;
  const SimPool<> world("of an allocation beside a pass, KEEL_TEST_SEED=" + std::to_string(seed),
                        seed, sim_schedule(sim_random(dice)),
                        {.capacity_bytes = kCapacity,
                         .window_bytes = 16 * kMiB,
                         .huge_pages = false,
                         .background = false});
  Pool& pool = *world.pool;
  std::vector<void*> held;
  for (std::size_t made = 0; made < kCapacity; made += kSize) {
    held.push_back(pool.kvmalloc(kSize));
    KEEL_CHECK(held.back() != nullptr, "a buffer of a new pool", made);
  }
  for (std::size_t freed = 0; freed < kCapacity / 2; freed += kSize) {
    pool.kvfree(held.back());
    held.pop_back();
  }
  constexpr std::size_t kWanted = kMiB;
  void* got = nullptr;
  Thread takes("takes", [&, late = sim_random(dice) % kStepsToPass] {
    dally(late);
    held.push_back(pool.kvmalloc(kSize));
  });
  Thread asks("asks", [&] { got = pool.kvmalloc(kWanted, AllocFlags::kNoWarn); });
  takes.join();
  asks.join();
  if (got == nullptr) {
    got = pool.kvmalloc(kWanted, AllocFlags::kNoWarn);
  }
  pool.kvfree(got);
  for (void* buffer : held) {
    pool.kvfree(buffer);
  }
  pool.audit();
  return got != nullptr;
}

// Memory is reserved while a round gives back what nobody used. Whether it is there when both have
// ended.
bool reserve_beside_a_round(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x7e5e;
  const SimPool<> world("of a round beside reserve(), KEEL_TEST_SEED=" + std::to_string(seed), seed,
                        sim_schedule(sim_random(dice)),
                        {.capacity_bytes = 8 * kMiB,
                         .chunk_bytes = kMiB / 4,
                         .window_bytes = 16 * kMiB,
                         .huge_pages = false,
                         .background = false});
  Pool& pool = *world.pool;
  pool.kvfree(pool.kvmalloc(5 * kMiB));
  constexpr std::uint64_t kWindowNs = 1'100'000'000;
  for (int window = 0; window < 3; ++window) {
    os().sleep_ns(kWindowNs);
    pool.upkeep();
  }
  KEEL_CHECK(pool.stats().trimmed_chunks == 0, "memory that was used lately has gone back");
  os().sleep_ns(kWindowNs);
  constexpr std::uint64_t kRoundNs = 20'000;  // A round's steps, about.
  constexpr Bytes kReserved{6 * kMiB};
  bool reserved = false;
  Thread reserves("reserves", [&, late_ns = sim_random(dice) % kRoundNs] {
    os().sleep_ns(late_ns);
    reserved = pool.reserve(kReserved).ok();
  });
  Thread keeps("keeps", [&] { pool.upkeep(); });
  reserves.join();
  keeps.join();
  pool.audit();

  return reserved && pool.stats().free >= kReserved;
}

// Events, in ten seconds, of a pool with a thread that nobody has used for half a minute.
std::uint64_t events_at_rest(const PoolConfig& config, bool in_pieces) {
  const SimPool<> world("", 1, sim_schedule(1), config);
  Pool& pool = *world.pool;
  std::vector<void*> held;
  if (in_pieces) {
    std::vector<void*> pages;
    while (void* page = pool.kvmalloc(kPageBytes, AllocFlags::kNoWarn)) {
      pages.push_back(page);
    }
    for (std::size_t i = 0; i < pages.size(); ++i) {
      i % 16 == 0 ? held.push_back(pages[i]) : pool.kvfree(pages[i]);
    }
  }
  os().sleep_ns(30'000'000'000);
  const std::uint64_t before = world.scheduler.trace().count();
  os().sleep_ns(10'000'000'000);
  const std::uint64_t events = world.scheduler.trace().count() - before;
  for (void* page : held) {
    pool.kvfree(page);
  }
  return events;
}

const PoolConfig kSmallPool{
    .capacity_bytes = 64 * kMiB, .window_bytes = 64 * kMiB, .huge_pages = false};
constexpr std::uint64_t kSecondNs = 1'000'000'000;

// Gives nothing, and takes a second for that.
class SlowShrinker final : public Shrinker {
 public:
  [[nodiscard]] const char* name() const override { return "slow"; }
  [[nodiscard]] Bytes count() const override { return Bytes(kMiB); }
  Bytes scan(Bytes) override {
    inside = true;
    os().sleep_ns(kSecondNs);
    inside = false;
    return Bytes(0);
  }
  std::atomic<bool> inside{false};
};

// How long a shrinker takes to leave while others scan, one after the other.
std::uint64_t removal_beside_scans(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x5ca9;
  const SimPool<> world("of a shrinker that leaves, KEEL_TEST_SEED=" + std::to_string(seed), seed,
                        sim_schedule(sim_random(dice)), kSmallPool);
  Shrinkers shrinkers;
  SlowShrinker shrinker;
  KEEL_CHECK(shrinkers.add(shrinker).ok(), "a shrinker");
  std::vector<Thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back("scans", [&] {
      for (int scan = 0; scan < 20; ++scan) {
        (void)shrinkers.scan(Bytes(kMiB), false);
      }
    });
  }
  while (!shrinker.inside) {
    os().sleep_ns(1000);
  }
  const std::uint64_t before_ns = os().monotonic_ns();
  shrinkers.remove(shrinker);
  const std::uint64_t took_ns = os().monotonic_ns() - before_ns;
  for (Thread& thread : threads) {
    thread.join();
  }
  return took_ns;
}

// What a pool at its cap has of the system a minute after all of it was freed, in the middle of a
// round that waits for a shrinker.
Bytes left_after_a_long_round() {
  const SimPool<> world(
      "", 1, sim_schedule(1),
      {.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB, .huge_pages = false});
  Pool& pool = *world.pool;
  SlowShrinker shrinker;
  KEEL_CHECK(pool.add_shrinker(shrinker).ok(), "a shrinker");
  std::vector<void*> held;
  while (void* buffer = pool.kvmalloc(5 * kMiB + kMiB / 4, AllocFlags::kNoWarn)) {
    held.push_back(buffer);
  }
  os().sleep_ns(10 * kSecondNs);  // So that the thread is past the rounds that it was woken for.
  while (!shrinker.inside) {
    os().sleep_ns(kSecondNs / 100);
  }
  for (void* buffer : held) {
    pool.kvfree(buffer);
  }
  os().sleep_ns(60 * kSecondNs);
  pool.remove_shrinker(shrinker);
  return pool.stats().populated;
}

// What a pool with a thread has of the system half a minute after small objects left it. Of
// `in_two` every second one goes a while before the others.
Bytes left_of_objects(bool in_two) {
  const SimPool<> world("", 1, sim_schedule(1), kSmallPool);
  Pool& pool = *world.pool;
  pool.kvfree(pool.kvmalloc(32 * kMiB));  // Of that come the slabs, so that nobody needs a page.
  std::vector<void*> objects(20 * 1024);
  for (void*& object : objects) {
    object = pool.kvmalloc(1024);
    KEEL_CHECK(object != nullptr && pool.kvsize(object) == 1024, "a small object");
  }
  os().sleep_ns(60 * kSecondNs);
  for (std::size_t i = 0; in_two && i < objects.size(); i += 2) {
    pool.kvfree(objects[i]);
  }
  os().sleep_ns(60 * kSecondNs);
  for (std::size_t i = in_two ? 1 : 0; i < objects.size(); i += in_two ? 2 : 1) {
    pool.kvfree(objects[i]);
  }
  os().sleep_ns(60 * kSecondNs);
  return pool.stats().populated;
}

// A disk under which it takes a while to make a mapping go.
class SlowPurges : public SimScheduledDisk {
 public:
  using SimScheduledDisk::SimScheduledDisk;
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if (protection == PROT_NONE && (flags & MAP_FIXED) != 0) {
      sleep_ns(1'000'000);
    }
    return SimScheduledDisk::mmap(address, bytes, protection, flags, fd, offset, out);
  }
};

// How long a round takes while others unmap faster than it purges; they stop after a second.
std::uint64_t round_beside_unmaps(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x10ad;
  const SimPool<SlowPurges> world(
      "of a round beside unmaps, KEEL_TEST_SEED=" + std::to_string(seed), seed,
      sim_schedule(sim_random(dice)),
      {.capacity_bytes = 24 * kMiB,
       .window_bytes = 256 * kMiB,
       .huge_pages = false,
       .background = false});
  Pool& pool = *world.pool;
  std::atomic<bool> ended{false};
  std::vector<Thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back("user", [&] {
      const std::uint64_t end_ns = os().monotonic_ns() + kSecondNs;
      while (!ended && os().monotonic_ns() < end_ns) {
        pool.kvfree(pool.kvmalloc(5 * kMiB));
        os().sleep_ns(200'000);
      }
    });
  }
  os().sleep_ns(kSecondNs / 100);
  const std::uint64_t before_ns = os().monotonic_ns();
  pool.upkeep();
  const std::uint64_t took_ns = os().monotonic_ns() - before_ns;
  ended = true;
  for (Thread& thread : threads) {
    thread.join();
  }
  pool.audit();
  return took_ns;
}

// How long a large buffer takes whose mapping owes a purge while a round purges as much as it may.
std::uint64_t map_beside_a_round(std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x3a9b;
  // What may be lazy before a mapping owes anything is more on machines with more CPUs.
  const std::size_t owed = 32 * std::bit_width(possible_cpus()) * kMiB;
  const std::size_t all = owed + 48 * kMiB;
  const SimPool<SlowPurges> world(
      "of a mapping beside a round, KEEL_TEST_SEED=" + std::to_string(seed), seed,
      sim_schedule(sim_random(dice)),
      {.capacity_bytes = all,
       .window_bytes = std::bit_ceil(4 * all),
       .initial_bytes = all,
       .huge_pages = false,
       .background = false});
  Pool& pool = *world.pool;
  std::vector<void*> mapped(owed / (8 * kMiB) + 4);
  for (void*& buffer : mapped) {
    buffer = pool.kvmalloc(8 * kMiB + kPageBytes);
    KEEL_CHECK(buffer != nullptr, "a buffer of a new pool");
  }
  for (void* buffer : mapped) {
    pool.kvfree(buffer);
  }
  KEEL_CHECK(pool.stats().lazy >= Bytes(owed + 32 * kMiB), "lazy aliases");
  Thread keeps("keeps", [&] { pool.upkeep(); });
  os().sleep_ns(1'000'000 + sim_random(dice) % 10'000'000);
  const std::uint64_t before_ns = os().monotonic_ns();
  void* buffer = pool.kvmalloc(5 * kMiB);
  const std::uint64_t took_ns = os().monotonic_ns() - before_ns;
  KEEL_CHECK(buffer != nullptr, "what was freed");
  keeps.join();
  pool.kvfree(buffer);
  pool.audit();
  return took_ns;
}

// What is lazy in a pool with a thread a minute after large buffers were freed that were mapped
// page by page, which takes more than a round to purge. All else is to stay as it is.
Bytes left_lazy() {
  const SimPool<> world("", 1, sim_schedule(1),
                        {.capacity_bytes = 96 * kMiB,
                         .window_bytes = 256 * kMiB,
                         .initial_bytes = 96 * kMiB,
                         .huge_pages = false});
  Pool& pool = *world.pool;
  std::vector<void*> pages;
  while (void* page = pool.kvmalloc(kPageBytes, AllocFlags::kNoWarn)) {
    pages.push_back(page);
  }
  for (std::size_t i = 0; i < pages.size(); i += 2) {
    pool.kvfree(pages[i]);
  }
  std::vector<void*> large;
  while (void* buffer = pool.kvmalloc(5 * kMiB, AllocFlags::kNoWarn)) {
    large.push_back(buffer);
  }
  KEEL_CHECK(large.size() >= 8, "too little to purge", large.size());
  os().sleep_ns(30 * kSecondNs);
  for (void* buffer : large) {
    pool.kvfree(buffer);
  }
  os().sleep_ns(60 * kSecondNs);
  return pool.stats().lazy;
}

// A disk under which it takes a while to make a mapping go, to populate memory, or to give it back.
class SlowGrowth final : public SlowPurges {
 public:
  using SlowPurges::SlowPurges;
  int madvise(void* address, std::size_t bytes, int advice) override {
    if (advice == MADV_POPULATE_WRITE) {
      sleep_ns(call_ns);
    }
    return SlowPurges::madvise(address, bytes, advice);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) override {
    sleep_ns(call_ns);
    return SlowPurges::fallocate(fd, mode, offset, bytes);
  }
  std::atomic<std::uint64_t> call_ns{1'000'000};
};

// What another thread does meanwhile, with some dozens of chunks.
enum class Beside : std::uint8_t { kReserve, kLargeBuffer, kTrim };

// What a request took, and what the callers of kvmalloc() have grown meanwhile.
struct BesideGrowth {
  std::uint64_t took_ns = 0;
  std::uint64_t chunks = 0;
};

// A buffer that the store must grow for, or a reserve() of what is free, while another thread has
// the store grow or shrink by much more, and with `third` yet another one asks for as much.
BesideGrowth request_beside(Beside what, bool third, std::uint64_t seed) {
  std::uint64_t dice = seed ^ 0x9e5e;
  const bool trims = what == Beside::kTrim;
  const SimPool<SlowGrowth> world(
      "of a request beside growth, KEEL_TEST_SEED=" + std::to_string(seed), seed,
      sim_schedule(sim_random(dice)),
      {.capacity_bytes = (trims ? 48 : 16) * kMiB,
       .chunk_bytes = kMiB / 4,
       .window_bytes = 128 * kMiB,
       .initial_bytes = trims ? 48 * kMiB : 0,
       .huge_pages = false,
       .background = false});
  Pool& pool = *world.pool;
  // Every second one leaves lazy aliases, which no one call can purge together.
  std::array<void*, 8> mapped{};
  if (trims) {
    for (void*& buffer : mapped) {
      buffer = pool.kvmalloc(5 * kMiB);
      KEEL_CHECK(buffer != nullptr, "a buffer of a new pool");
    }
    for (std::size_t i = 0; i < mapped.size(); i += 2) {
      pool.kvfree(std::exchange(mapped[i], nullptr));
    }
    KEEL_CHECK(pool.stats().lazy >= Bytes(20 * kMiB), "lazy aliases");
  }
  void* large = nullptr;
  Thread other("grows or shrinks", [&] {
    switch (what) {
      case Beside::kReserve:
        KEEL_CHECK(pool.reserve(Bytes(10 * kMiB)).ok(), "what there is room for");
        break;
      case Beside::kLargeBuffer:
        large = pool.kvmalloc(10 * kMiB);
        KEEL_CHECK(large != nullptr, "what there is room for");
        break;
      case Beside::kTrim: (void)pool.trim(); break;
    }
  });
  const auto ask = [&]() -> void* {
    if (trims) {
      KEEL_CHECK(pool.reserve(Bytes(kMiB)).ok(), "what is free");
      return nullptr;
    }
    void* buffer = pool.kvmalloc(kMiB);
    KEEL_CHECK(buffer != nullptr, "a buffer that there is room for");
    return buffer;
  };
  // A trim purges before it holds anything, for some 12 ms here.
  os().sleep_ns(trims ? sim_random(dice) % (seed % 2 == 0 ? 16'000'000 : 4'000'000) : 3'000'000);
  std::vector<Thread> thirds;
  if (third) {
    thirds.emplace_back("asks too", [&] { pool.kvfree(ask()); });
  }
  BesideGrowth result;
  const std::uint64_t grown = pool.stats().inline_growths;
  const std::uint64_t began_ns = os().monotonic_ns();
  void* buffer = ask();
  result.took_ns = os().monotonic_ns() - began_ns;
  result.chunks = pool.stats().inline_growths - grown;
  for (Thread& thread : thirds) {
    thread.join();
  }
  other.join();
  pool.kvfree(buffer);
  pool.kvfree(large);
  for (void* left : mapped) {
    pool.kvfree(left);
  }
  pool.audit();
  return result;
}

// How long it takes to populate 96 MiB, ten a second, of which the keeper sees what has lain free
// for seconds: for reserve(), or for a buffer.
std::uint64_t populate_beside_the_keeper(bool reserves) {
  SimPool<SlowGrowth> world(
      "", 1, sim_schedule(1),
      {.capacity_bytes = 128 * kMiB, .window_bytes = 256 * kMiB, .huge_pages = false});
  Pool& pool = *world.pool;
  pool.kvfree(pool.kvmalloc(64 * kPageBytes));  // So that it makes rounds.
  world.disk.call_ns = kSecondNs / 20;          // Records and frames: a tenth for a chunk.
  std::atomic<bool> ended{false};
  std::uint64_t took_ns = 0;
  Thread populates("populates", [&] {
    const std::uint64_t before_ns = os().monotonic_ns();
    if (reserves) {
      KEEL_CHECK(pool.reserve(Bytes(96 * kMiB)).ok(), "what there is room for");
    } else {
      pool.kvfree(pool.kvmalloc(96 * kMiB));
    }
    took_ns = os().monotonic_ns() - before_ns;
    ended = true;
  });
  os().sleep_ns(30 * kSecondNs);
  if (!ended) {
    world.disk.call_ns = 0;  // Faster than anybody gives back.
  }
  populates.join();
  return took_ns;
}

// What a pool whose thread had gone to rest has of the system a minute after a reserve() of more
// than there is room for.
Bytes left_of_failed_reserve() {
  const SimPool<> world("", 1, sim_schedule(1), kSmallPool);
  Pool& pool = *world.pool;
  void* held = pool.kvmalloc(kPageBytes);
  os().sleep_ns(10 * kSecondNs);
  KEEL_CHECK(!pool.reserve(Bytes(64 * kMiB)).ok(), "more than there is");
  KEEL_CHECK(pool.stats().populated == Bytes(64 * kMiB), "populated in vain");
  os().sleep_ns(60 * kSecondNs);
  const Bytes left = pool.stats().populated;
  pool.kvfree(held);
  return left;
}

// What a pool whose thread had gone to rest has of the system a minute after the only buffer was
// freed, a moment after it was made.
Bytes left_of_a_moment() {
  const SimPool<> world("", 1, sim_schedule(1), kSmallPool);
  Pool& pool = *world.pool;
  os().sleep_ns(10 * kSecondNs);
  void* buffer = pool.kvmalloc(32 * kMiB);
  os().sleep_ns(kSecondNs / 5);
  pool.kvfree(buffer);
  os().sleep_ns(60 * kSecondNs);
  return pool.stats().populated;
}

// What a hardened pool whose thread had gone to rest has of the system a minute after its buffers
// were freed.
Bytes left_of_hardened() {
  const SimPool<> world("", 1, sim_schedule(1),
                        {.capacity_bytes = 64 * kMiB,
                         .window_bytes = 256 * kMiB,
                         .huge_pages = false,
                         .hardened = true,
                         .quarantine_bytes = kMiB});
  Pool& pool = *world.pool;
  os().sleep_ns(10 * kSecondNs);
  std::vector<void*> held;
  for (int i = 0; i < 8; ++i) {
    held.push_back(pool.kvmalloc(5 * kMiB));
    KEEL_CHECK(held.back() != nullptr, "a buffer of a new pool");
  }
  os().sleep_ns(10 * kSecondNs);
  for (void* buffer : held) {
    pool.kvfree(buffer);
  }
  os().sleep_ns(60 * kSecondNs);
  return pool.stats().populated;
}

// How often a request for what lies in pieces takes the growth lock of a pool at capacity, of which
// next to nothing is free.
unsigned growth_locks_at_capacity(std::size_t size) {
  SimPool<SimScheduledDisk, LockCounts> world("", 1, sim_schedule(1),
                                              {.capacity_bytes = 16 * kMiB,
                                               .chunk_bytes = kMiB / 4,
                                               .window_bytes = 64 * kMiB,
                                               .huge_pages = false,
                                               .background = false});
  Pool& pool = *world.pool;
  std::vector<void*> pages;
  while (void* page = pool.kvmalloc(kPageBytes, AllocFlags::kNoWarn)) {
    pages.push_back(page);
  }
  for (std::size_t i = 0; i < 2 * size / kPageBytes; i += 2) {
    pool.kvfree(std::exchange(pages[i], nullptr));
  }
  (void)pool.trim();  // What CPUs hold idle is free; no chunk is whole.
  const std::uint64_t mapped = pool.stats().vmalloc_allocations;
  world.scheduler.rank = LockRank::kPoolTurn;
  world.scheduler.count = 0;
  void* buffer = pool.kvmalloc(size);
  const unsigned count = world.scheduler.count;
  KEEL_CHECK(buffer != nullptr && pool.stats().vmalloc_allocations == mapped + 1, "no mapping");
  void* none = pool.kvmalloc(size, AllocFlags::kNoWarn);
  KEEL_CHECK(none == nullptr, "memory that there is not");
  const unsigned in_vain = world.scheduler.count;
  pool.kvfree(buffer);
  for (void* page : pages) {
    pool.kvfree(page);
  }
  return count + in_vain;
}

// How often a trim() takes it beyond the chunks that it gives back.
unsigned growth_locks_of_trim() {
  SimPool<SimScheduledDisk, LockCounts> world("", 1, sim_schedule(1),
                                              {.capacity_bytes = 16 * kMiB,
                                               .chunk_bytes = kMiB / 4,
                                               .window_bytes = 16 * kMiB,
                                               .initial_bytes = 4 * kMiB,
                                               .huge_pages = false,
                                               .background = false});
  Pool& pool = *world.pool;
  void* used = pool.kvmalloc(3 * kMiB);
  world.scheduler.rank = LockRank::kPoolTurn;
  world.scheduler.count = 0;
  KEEL_CHECK(pool.trim() != Bytes(0), "chunks that nobody uses");
  const unsigned count = world.scheduler.count;
  pool.kvfree(used);
  return count - static_cast<unsigned>(pool.stats().trimmed_chunks);
}

// What is free a second after a mapped buffer took all that was, while the thread was at rest.
Bytes free_behind_a_large_buffer(bool hardened) {
  const SimPool<> world("", 1, sim_schedule(1),
                        {.capacity_bytes = 64 * kMiB,
                         .window_bytes = 256 * kMiB,
                         .huge_pages = false,
                         .hardened = hardened});
  Pool& pool = *world.pool;
  constexpr std::size_t kSize = 6 * kMiB;
  KEEL_CHECK(pool.reserve(Bytes(kSize)).ok(), "what there is room for");
  os().sleep_ns(10 * kSecondNs);
  KEEL_CHECK(pool.stats().free == Bytes(kSize), "the thread has grown the pool", kSize);
  void* buffer = pool.kvmalloc(kSize);
  KEEL_CHECK(buffer != nullptr, "what was reserved");
  os().sleep_ns(kSecondNs);
  const Bytes free = pool.stats().free;
  pool.kvfree(buffer);
  return free;
}

}  // namespace

TEST_CASE("what was had and freed within a second by who never comes again is given back") {
  CHECK(left_of_a_moment() <= Bytes(8 * kMiB));
}

TEST_CASE("what a hardened pool does not need any more is given back, as any other pool's") {
  CHECK(left_of_hardened() <= Bytes(10 * kMiB));  // Half of it is the last buffer, in quarantine.
}

TEST_CASE("large and guarded buffers wake the pool's thread when little is free behind them") {
  for (const bool hardened : {false, true}) {
    CAPTURE(hardened);
    CHECK(free_behind_a_large_buffer(hardened) >= Bytes(kMiB));
  }
}

TEST_CASE("what a reserve() populates that fails is given back, also where nobody asks again") {
  CHECK(left_of_failed_reserve() <= Bytes(8 * kMiB));
}

TEST_CASE(
    "the pool's thread takes back nothing of what is being populated, however long it takes") {
  for (const bool reserves : {true, false}) {
    CAPTURE(reserves);
    CHECK(populate_beside_the_keeper(reserves) < 15 * kSecondNs);
  }
}

TEST_CASE(
    "who needs the pool to grow waits for one chunk of what another has it grow or shrink by") {
  constexpr std::uint64_t kMs = 1'000'000;
  for (const Beside what : {Beside::kReserve, Beside::kLargeBuffer, Beside::kTrim}) {
    for (const bool third : {false, true}) {
      CAPTURE(static_cast<int>(what));
      CAPTURE(third);
      const std::uint64_t first = test_seed("sim request beside growth", 941);
      for (std::uint64_t seed = first; seed < first + test_rounds(20, 3); ++seed) {
        CAPTURE(seed);
        const BesideGrowth request = request_beside(what, third, seed);
        // Two calls for a chunk that is grown, one for what is given back.
        const std::uint64_t others = third ? 2 : 1;  // that may have it before
        switch (what) {
          case Beside::kReserve:
            CHECK(request.took_ns <= (1 + 2 * others + 2 * request.chunks) * kMs);
            break;
          case Beside::kLargeBuffer:  // Whose thread grows as callers do: four are the request's.
            CHECK(request.took_ns <= (1 + 2 * others + 2 * 4 * others) * kMs);
            break;
          case Beside::kTrim: CHECK(request.took_ns <= (1 + others) * kMs); break;
        }
      }
    }
  }
}

TEST_CASE("who removes a shrinker waits for the scan under way, and for none after it") {
  const std::uint64_t first = test_seed("sim removal beside scans", 951);
  for (std::uint64_t seed = first; seed < first + test_rounds(20, 3); ++seed) {
    CAPTURE(seed);
    CHECK(removal_beside_scans(seed) < kSecondNs + kSecondNs / 10);
  }
}

TEST_CASE("a pool at capacity has nobody wait for its growth in vain") {
  CHECK(growth_locks_at_capacity(16 * kPageBytes) == 0);
}

TEST_CASE("who needs the pool to grow waits for no chunk that a trim cannot give back") {
  CHECK(growth_locks_of_trim() == 0);
}

TEST_CASE("what a round does not come to purge the next one does") {
  CHECK(left_lazy() <= Bytes(16 * kMiB));
}

TEST_CASE("a round ends though others unmap faster than it purges") {
  const std::uint64_t first = test_seed("sim round beside unmaps", 921);
  for (std::uint64_t seed = first; seed < first + test_rounds(1, 1); ++seed) {
    CAPTURE(seed);
    CHECK(round_beside_unmaps(seed) < kSecondNs / 2);
  }
}

TEST_CASE("a mapping that owes a purge waits for a slice of a round's, and not for the round") {
  constexpr std::uint64_t kMs = 1'000'000;
  const std::uint64_t first = test_seed("sim map beside a round", 931);
  for (std::uint64_t seed = first; seed < first + test_rounds(20, 2); ++seed) {
    CAPTURE(seed);
    // Five slices are its own. Each lets one of the other thread's go first, and one is under way.
    const std::uint64_t took_ns = map_beside_a_round(seed);
    CHECK(took_ns <= 11 * kMs);
    CHECK(took_ns >= kMs);  // It did owe.
  }
}

TEST_CASE("what small objects leave in a pool at rest is given back, also if they leave in two") {
  for (const bool in_two : {false, true}) {
    CAPTURE(in_two);
    CHECK(left_of_objects(in_two) <= Bytes(6 * kMiB));
  }
}

TEST_CASE("what is freed while the pool's thread waits for a shrinker is given back") {
  CHECK(left_after_a_long_round() <= Bytes(6 * kMiB));
}

TEST_CASE(
    "idle buffers in the hands of one request are had by the next, whatever passes meanwhile") {
  const std::uint64_t first = test_seed("sim take beside a pass", 811);
  for (std::uint64_t seed = first; seed < first + test_rounds(150, 5); ++seed) {
    CAPTURE(seed);
    CHECK(take_beside_a_pass(seed));
  }
}

TEST_CASE("what reserve() populates stays when a round is giving memory back meanwhile") {
  const std::uint64_t first = test_seed("sim reserve beside a round", 901);
  for (std::uint64_t seed = first; seed < first + test_rounds(60, 3); ++seed) {
    CAPTURE(seed);
    CHECK(reserve_beside_a_round(seed));
  }
}

TEST_CASE(
    "the thread of a pool sleeps when all that lies free is to stay, and long if it is in pieces") {
  const PoolConfig small{.capacity_bytes = 8 * kMiB,
                         .chunk_bytes = kMiB / 4,
                         .window_bytes = 16 * kMiB,
                         .huge_pages = false};
  PoolConfig ready = small;
  ready.initial_bytes = ready.capacity_bytes;
  CHECK(events_at_rest(ready, false) < 20);  // Hundreds, if it makes rounds.
  // A rare round, for what goes without a word; thousands, if it makes the usual ones.
  const std::uint64_t in_pieces = events_at_rest(small, true);
  CHECK(in_pieces > 20);
  CHECK(in_pieces < 1000);
}

TEST_CASE("a buffer freed while another request's pass finds nothing is had by the next request") {
  const std::uint64_t first = test_seed("sim free beside a pass", 801);
  for (std::uint64_t seed = first; seed < first + test_rounds(300, 5); ++seed) {
    CAPTURE(seed);
    CHECK(free_beside_a_pass(seed));
  }
}

TEST_CASE("simulated threads on a pool never lose, share or tear a buffer, and never hang") {
  const bool one = std::getenv("KEEL_TEST_SEED") != nullptr;
  const std::uint64_t first = test_seed("sim pool", setting("KEEL_SIM_SEED_FIRST", 1));
  const std::uint64_t worlds = one ? 1 : setting("KEEL_SIM_SEEDS", test_rounds(20, 5));
  std::uint64_t steps = 0;
  for (std::uint64_t seed = first; seed < first + worlds; ++seed) {
    steps += run_world(seed).steps;
  }
  keel_test::say_tried("sim_pool", worlds, " steps=" + std::to_string(steps));
}

TEST_CASE("a simulated pool run again is the same to the last event") {
  const std::uint64_t first = test_seed("sim pool twice", 501);
  for (std::uint64_t seed = first; seed < first + test_rounds(5, 2); ++seed) {
    const Outcome once = run_world(seed);
    const Outcome again = run_world(seed);
    CAPTURE(seed);
    CHECK(once.steps == again.steps);
    CHECK(once.hash == again.hash);
  }
}

#endif
