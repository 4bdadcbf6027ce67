// Judge: crashes a life at its moments, in the ways that a crash can go, with rot on top or
// without, and holds what recovery delivers against what the life's record says (crash_lab.h).
#pragma once

#include <cstdint>
#include <unordered_set>

#include "crash_record.h"
#include "crash_recovery.h"
#include "crash_run.h"
#include "support/sim_disk.h"

namespace keel_test::crash_lab {

// The disk becomes what a crash leaves of the moment's: all of what was not durable, nothing of it,
// or, with kGarbage, what the seed says; of a durable write that is alone under way a part.
void boot(keel::SimDisk& after, const Moment& moment, std::uint64_t crash_seed, keel::SimFate fate);

class Judge {
 public:
  // Of a life that is over.
  Judge(Run& run, const LifeRecord& record) : run_(run), record_(record) {}

  // Each fails the running test if what recovery delivers is wrong.
  void crash_at_all_moments(std::uint64_t& random);
  // Not again what was judged already with the same promises.
  void crash_one(const Moment& moment, std::uint64_t crash_seed, keel::SimFate fate);
  Recovered recover_one(const Moment& moment, std::uint64_t crash_seed, keel::SimFate fate);
  void rot_one(const Moment& moment, std::uint64_t rot_seed);

 private:
  // Counts it.
  bool is_new(const Moment& moment, const keel::SimDisk& after);
  // What was done around it, of a simulated world.
  void show(const Moment& moment) const;
  // By threads of its own for one state in 16.
  [[nodiscard]] Recovered recover_by(std::uint64_t state_seed);
  void check(const Moment& moment, const Recovered& recovered, std::uint64_t crash_seed,
             keel::SimFate fate);
  // `disk`: with what was recovered from.
  void check_rot(const Moment& moment, const Recovered& recovered, std::uint64_t rot_seed,
                 const keel::SimDisk& disk);

  Run& run_;
  const LifeRecord& record_;
  // Hashes of what the disks held that were judged, and of what was promised of them.
  std::unordered_set<std::uint64_t> judged_;
};

}  // namespace keel_test::crash_lab
