#include "sim_world.h"

#include <doctest/doctest.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "keel/base/percpu.h"
#include "log/format.h"
#include "probe.h"
#include "support/again.h"
#include "support/sim_scheduled_disk.h"
#include "support/sim_scheduler.h"

#if defined(KEEL_DEBUG)

using namespace keel;

namespace keel_test {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

enum class Trouble : std::uint8_t {
  kNone,
  kWriteError,
  kShortWrite,
  kFlushError,
  kFlushDrops,  // fails, and forgets what was written
  kRingError,
  kReadError,
  kMemory,
  kThreads,
  kCount_,
};

struct World {
  CrashPlan plan;
  SimSchedule schedule;
  SimLatency latency;
  SimDiskOptions disk;
  Trouble trouble = Trouble::kNone;
  std::uint64_t trouble_within = 1;  // operations of a life
  bool for_good = false;
};

template <class T, std::size_t N>
T one_of(std::uint64_t& dice, const T (&choices)[N]) {
  return choices[sim_random(dice) % N];
}

void draw_journal(World& world, std::uint64_t& dice) {
  JournalConfig& config = world.plan.journal;
  world.plan.in_flight = one_of(dice, {1U, 1U, 2U, 2U, 3U, 4U, 8U});
  config.io_mode = one_of(dice, {IoMode::kSync, IoMode::kUring, IoMode::kUring});
  config.cil_memory = Bytes(one_of(dice, {std::uint64_t{0}, kMiB, 3 * kMiB / 2, 4 * kMiB}));
  config.cover_after_ns = one_of(dice, {std::uint64_t{0}, std::uint64_t{1'000'000'000}});
  // Nothing here takes a second but what a thread does by itself, between transactions.
  config.stall_after_ns =
      one_of(dice, {UINT64_MAX, std::uint64_t{60'000'000'000}, std::uint64_t{2'000'000'000}});
  if (world.plan.large_objects) {
    config.cil_memory = {};
    world.plan.push_threshold = one_of(dice, {std::uint64_t{0}, 6 * kMiB / 10, 2 * kMiB});
  } else {
    world.plan.push_threshold =
        one_of(dice, {std::uint64_t{0}, std::uint64_t{0}, std::uint64_t{20'000}, kMiB / 8});
  }
}

void draw_load(World& world, std::uint64_t& dice, unsigned effort) {
  CrashPlan& plan = world.plan;
  plan.threads = one_of(dice, {1U, 2U, 2U, 3U, 4U, 4U, 6U, 8U});
  plan.large_objects = sim_random(dice) % 16 == 0;
  plan.mixed_waits = sim_random(dice) % 8 != 0;
  plan.often = sim_random(dice) % 3 == 0;
  // Where all rest at once, a lost wakeup shows.
  plan.pause_one_in = one_of(dice, {64U, 64U, 16U, 4U});
  if (plan.large_objects) {
    plan.log_bytes = 24 * kMiB;
    plan.transactions = 24;
    plan.children = 1;
    plan.crashes = 2;
    plan.moment_stride = 7;
  } else {
    plan.log_bytes = kMinLogBytes.value() * one_of(dice, {1U, 1U, 1U, 1U, 2U, 3U});
    plan.transactions = 40 + static_cast<std::uint32_t>(sim_random(dice) % 160);
    plan.children = 1 + static_cast<std::uint32_t>(sim_random(dice) % 2);
    plan.crashes = one_of(dice, {4U, 8U, 16U});
    plan.moment_stride = one_of(dice, {1U, 2U, 3U});
  }
  // Only in a log as large as this does a CPU keep credit (choose_credit()). Slow: half of it is
  // searched for witnesses.
  if (sim_random(dice) % 8 == 0 && possible_cpus() <= 4 && !plan.large_objects) {
    plan.log_bytes = 13 * kMiB * possible_cpus();
    plan.crashes = 1;
    plan.moment_stride = 11;
  }
  plan.crashes *= effort;
  plan.rot = sim_random(dice) % 4 == 0 ? 2 * effort : 0;
}

void draw_trouble(World& world, std::uint64_t& dice) {
  world.latency.write_ns = one_of<std::uint64_t>(dice, {1'000, 20'000, 200'000});
  world.latency.flush_ns = one_of<std::uint64_t>(dice, {1'000, 100'000, 3'000'000});
  world.latency.slow_one_in = one_of(dice, {0U, 0U, 20U, 200U});
  world.disk.direct_align = one_of(dice, {512U, 512U, 4096U});
  world.disk.registers_buffers = sim_random(dice) % 4 != 0;
  world.disk.virtual_clock = true;
  if (sim_random(dice) % 2 == 0) {
    world.trouble = static_cast<Trouble>(sim_random(dice) % static_cast<int>(Trouble::kCount_));
  }
  world.trouble_within = std::uint64_t{8} << sim_random(dice) % 6;
  world.for_good = sim_random(dice) % 2 == 0;
  world.plan.journal.buffered = sim_random(dice) % 4 == 0;
  if (world.trouble == Trouble::kThreads) {
    world.schedule.refuse_thread_one_in = 12;
  }
}

World draw_world(std::uint64_t seed, unsigned effort) {
  std::uint64_t dice = seed ^ 0x3a17b05d2c4e6f81U;
  World world;
  world.schedule = sim_schedule(sim_random(dice));
  world.plan.seed = sim_random(dice) >> 8;
  world.disk.seed = sim_random(dice);
  draw_load(world, dice, effort);
  draw_journal(world, dice);
  draw_trouble(world, dice);
  if (const char* stop = std::getenv("KEEL_SIM_STOP"); stop != nullptr) {
    world.schedule.most_steps = std::strtoull(stop, nullptr, 0);
  }
  return world;
}

// Outside of the simulation: it needs the process's pool, which is older than the world.
SimSnapshot make_log(const World& world) {
  SimDisk disk(world.disk);
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = Bytes(world.plan.log_bytes)}).ok());
  return disk.snapshot();
}

// One fault for a life, at a random operation of it. True if it may end a journal that is open.
bool inject(const World& world, SimScheduledDisk& disk, SimScheduler& scheduler) {
  SimFault fault;
  fault.nth = 1 + scheduler.draw() % world.trouble_within;
  fault.for_good = world.for_good;
  fault.bytes = scheduler.draw() % 16 * 512;
  bool may_end = true;
  switch (world.trouble) {
    case Trouble::kWriteError: fault.op = SimOp::kWrite; break;
    case Trouble::kShortWrite:
      fault.op = SimOp::kWrite;
      fault.effect = SimFault::Effect::kShort;
      // Else it is finished.
      may_end = world.for_good || fault.bytes % format::kMinBlockBytes != 0;
      break;
    case Trouble::kFlushError: fault.op = SimOp::kFlush; break;
    case Trouble::kFlushDrops:
      fault.op = SimOp::kFlush;
      fault.effect = SimFault::Effect::kFailAndDrop;
      break;
    case Trouble::kRingError:
      fault.op = scheduler.draw() % 3 == 0 ? SimOp::kRingWait : SimOp::kRingSubmit;
      break;
    case Trouble::kReadError:
      fault.op = SimOp::kRead;
      fault.nth = 1 + fault.nth % 4;
      may_end = false;
      break;
    case Trouble::kMemory: disk.refuse_metadata(40); return false;
    default: return false;
  }
  disk.inject(fault);
  return may_end;
}

// What such a fault may make of a call.
bool may_fail_so(const World& world, bool may_end, Failing what, Errc code) {
  switch (world.trouble) {
    case Trouble::kNone: return false;
    case Trouble::kMemory: return what != Failing::kJournal && code == Errc::kNoMemory;
    case Trouble::kThreads: return what != Failing::kJournal && code == Errc::kSystem;
    case Trouble::kReadError: return what == Failing::kOpen && code == Errc::kIo;
    default: return what != Failing::kCall && may_end && code == Errc::kIo;
  }
}

const char* to_string(Trouble trouble) {
  constexpr const char* kNames[] = {"none",        "write error", "short write",
                                    "flush error", "flush drops", "ring error",
                                    "read error",  "no memory",   "no threads"};
  return kNames[static_cast<unsigned>(trouble)];
}

std::string describe(const World& world, std::uint64_t seed) {
  const CrashPlan& plan = world.plan;
  return "seed " + std::to_string(seed) + ": " + std::to_string(plan.threads) + " threads, " +
         std::to_string(plan.transactions) + " transactions, depth " +
         std::to_string(plan.in_flight) + ", log of " + std::to_string(plan.log_bytes / 1024) +
         " KiB" + (plan.large_objects ? ", large objects" : "") + ", " +
         (plan.journal.io_mode == IoMode::kUring ? "uring" : "sync") +
         (plan.journal.buffered ? ", buffered" : "") + ", cil_memory " +
         std::to_string(plan.journal.cil_memory.value() / 1024) + " KiB, threshold " +
         std::to_string(plan.push_threshold) + ", trouble: " + to_string(world.trouble) +
         (plan.often ? ", forced often" : "") + ", pauses 1 in " +
         std::to_string(plan.pause_one_in) +
         (world.schedule.spurious_one_in == 0 ? "" : ", spurious wakes") +
         (world.schedule.switch_one_in == 0
              ? ", priorities"
              : ", switches 1 in " + std::to_string(world.schedule.switch_one_in)) +
         ", " + std::to_string(world.schedule.cpus) + " CPUs";
}

}  // namespace

std::string describe_sim_world(std::uint64_t seed) { return describe(draw_world(seed, 1), seed); }

SimWorldResult run_sim_world(std::uint64_t seed, unsigned effort) {
  // Images and buffers of a MiB come and go with each state: not to the kernel and back.
  (void)::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  (void)::mallopt(M_TRIM_THRESHOLD, 512 << 20);
  World world = draw_world(seed, effort);
  const std::string text = describe(world, seed);
  INFO("KEEL_TEST_SEED=", seed, ": ", text, "\nagain: KEEL_TEST_SEED=", seed, " ",
       this_case_again());
  SimWorldResult result;
  const SimSnapshot beginning = make_log(world);
  SimScheduler scheduler(world.schedule);
  scheduler.set_name("KEEL_TEST_SEED=" + std::to_string(seed) + " (" + text + ")");
  // The pool's, and what no life owns.
  SimScheduledDisk ground(scheduler, world.disk, world.latency);
  const ScopedOs scope(ground);
  auto pool = Pool::create({.capacity_bytes = 256 * kMiB,
                            .window_bytes = std::size_t{1} << 30,
                            .huge_pages = false,
                            .background = seed % 4 != 0});
  KEEL_CHECK(pool.ok() || world.trouble == Trouble::kThreads, "a pool for the world");
  if (!pool) {
    return result;
  }
  CrashPlan& plan = world.plan;
  plan.beginning = &beginning;
  plan.journal.pool = pool->get();
  plan.journal.on_stall = [&scheduler](const StallReport& report) { scheduler.fail(report.line); };
  plan.make_disk = [&](std::uint64_t disk_seed) -> std::unique_ptr<SimDisk> {
    SimDiskOptions options = world.disk;
    options.seed = disk_seed;
    return std::make_unique<SimScheduledDisk>(scheduler, options, world.latency);
  };
  std::uint64_t refused_before = 0;  // threads, when the life began
  bool may_end = false;              // of its fault
  plan.inject = [&](SimDisk& disk) {
    refused_before = scheduler.refused();
    may_end = inject(world, static_cast<SimScheduledDisk&>(disk), scheduler);
  };
  plan.may_fail = [&](SimDisk& disk, Failing what, const Error& error) {
    const auto log = disk.io_log();
    const bool met = scheduler.refused() != refused_before ||
                     static_cast<SimScheduledDisk&>(disk).refused() != 0 ||
                     std::any_of(log.begin(), log.end(), [](const SimIo& io) { return io.faulty; });
    return met && may_fail_so(world, may_end, what, error.code);
  };
  plan.on_state = [&](std::uint64_t last, std::uint64_t end) {
    scheduler.note("state", "", last, end);
  };
  plan.on_callback = [&] { scheduler.works(); };
  plan.step = [&] { return scheduler.steps(); };
  plan.show = [&](std::uint64_t step) { scheduler.trace().print_around(stdout, step); };
  plan.alone = [&](bool begins) { begins ? scheduler.pause_points() : scheduler.resume_points(); };
  result.tally = run_crash_plan(plan);
  pool->reset();
  result.trace_hash = scheduler.trace().hash();
  result.steps = scheduler.steps();
  result.switches = scheduler.switches();
  result.tried = scheduler.tried();
  return result;
}

}  // namespace keel_test

#endif
