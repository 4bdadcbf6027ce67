// Crash tests of the journal on the simulated disk.
//
// A life is a journal from its open to a power cut: it commits random transactions over a few
// objects, forces now and then, writes objects home and releases them, on a log so small that it
// wraps. At every I/O that changed something, within each write that is durable by itself
// (RWF_DSYNC) when some of its sectors are, and whenever something was promised, the disk is
// snapshotted, with what had been promised by then: a moment. After the life each moment is crashed
// in several ways, and what recovery delivers must be
//
//   1. every sequence that had been forced,
//   2. for every object exactly the version that the last recovered sequence left it with: so whole
//      transactions only, and a prefix of the sequences,
//   3. never "damaged": a crash is not rot.
//
// From some of those crashed disks the next life begins, three deep, so that incarnations and
// leftovers of earlier laps and lives meet. What its open() delivers must be what the judge got.
//
// With `may_fail`, whoever makes the plan also injects faults, and says which errors are theirs: a
// call is refused and the life goes on, or it ends at its first error, and what had been promised
// before that must be there. With
// `rot`, crashed disks are damaged on top: bits flipped, sectors moved. Then nothing is delivered
// that was not committed so, and the newest may be missing only where nothing behind it says that
// it was stable (log_evidence.h): elsewhere the log must be reported as damaged, and it may be
// refused only if what is kept twice is gone.
//
// Its parts, from the top down: this, which life begins where; crash_judge.h, what a crash leaves
// and whether recovery is right about it; crash_life.h and crash_committer.h, a life;
// crash_record.h, what it promised; crash_recovery.h, what recovery delivers; crash_versions.h,
// objects.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "keel/base/mutex.h"
#include "keel/cil/journal.h"
#include "support/sim_disk.h"

namespace keel_test {

inline constexpr std::size_t kCrashObjects = 48;

// What an error keeps from going on.
enum class Failing : std::uint8_t {
  kOpen,
  kCall,     // of an open journal, which itself goes on
  kJournal,  // an open one, for good
};

struct CrashPlan {
  std::uint64_t seed = 1;
  std::uint32_t transactions = 400;  // of the first life, over all threads; later ones half of it
  std::uint32_t threads = 1;
  std::uint32_t crashes = 6;   // of each moment, beside "keep all" and "drop all"
  std::uint32_t children = 2;  // lives that begin at crashes of a life
  std::uint32_t depth = 3;
  std::uint64_t log_bytes = keel::kMinLogBytes.value();
  bool large_objects = false;        // up to 768 KiB: checkpoints of several batches
  unsigned in_flight = 0;            // JournalConfig::depth
  std::uint64_t push_threshold = 0;  // JournalConfig::push_threshold
  // Of so many moments one is crashed, and all at which something was just promised.
  std::uint32_t moment_stride = 1;

  // Of simulated worlds (sim_world.h).
  keel::JournalConfig journal{};  // but for the two fields above
  // The disk to begin with, with a log on it; nullptr: one is made.
  const keel::SimSnapshot* beginning = nullptr;
  // The disk of each life; empty: a plain one.
  std::function<std::unique_ptr<keel::SimDisk>(std::uint64_t seed)> make_disk = {};
  std::function<void(keel::SimDisk&)> inject = {};  // called when a life begins; may be empty
  // Whether a fault that the life with this disk has met by now may be what failed; empty: there
  // are none.
  std::function<bool(keel::SimDisk&, Failing, const keel::Error&)> may_fail = {};
  bool mixed_waits = false;  // also callbacks, timeouts, and threads that pause
  bool often = false;        // nearly every transaction is forced
  // One transaction in so many is followed by a pause, of up to `pause_ns`.
  std::uint32_t pause_one_in = 64;
  std::uint64_t pause_ns = 8'000'000'000;
  std::uint32_t rot = 0;  // damaged crashes of each moment
  // What was found in a state: the last sequence, and how the log ended; may be empty.
  std::function<void(std::uint64_t last, std::uint64_t end)> on_state = {};
  std::function<void()> on_callback = {};    // what on_stable() was given was called; may be empty
  std::function<std::uint64_t()> step = {};  // to tell when a moment was; may be empty
  std::function<void(std::uint64_t step)> show = {};  // what was done around it; may be empty
  // Told true before a state is judged by this thread alone, false afterwards; may be empty.
  std::function<void(bool)> alone = {};
};

struct CrashTally {
  std::uint64_t states = 0;  // of a life, each once
  std::uint64_t same = 0;    // beside them: drawn once more
  std::uint64_t lives = 0;
  std::uint64_t moments = 0;
  std::uint64_t bytes_logged = 0;
  std::uint64_t torn = 0;    // states whose report said so
  std::uint64_t failed = 0;  // lives that an injected fault ended
  // Beside the states, those with rot: refused or reported; delivered whole; or cut where nothing
  // vouches, so that rot and a torn tail look the same.
  std::uint64_t rot = 0;
  std::uint64_t rot_detected = 0;
  std::uint64_t rot_harmless = 0;
  std::uint64_t rot_cut = 0;
};

// Fails the running test with the seed of what went wrong.
CrashTally run_crash_plan(const CrashPlan& plan);

}  // namespace keel_test
