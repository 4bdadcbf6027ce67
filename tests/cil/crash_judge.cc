#include "crash_judge.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <string>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "keel/base/os.h"
#include "log/hash.h"
#include "log_evidence.h"
#include "probe.h"
#include "support/spare_memory_disk.h"

using namespace keel;

namespace keel_test::crash_lab {
namespace {

// Half of the damage is done where the newest writes went.
std::uint64_t rot_place(const Moment& moment, std::uint64_t& random) {
  const SimImage& log = moment.disk.file(kLogPath);
  const std::uint64_t draw = sim_random(random);
  if (draw % 2 == 0 && !log.pending.empty()) {
    const SimWrite& write = log.pending[draw / 2 % log.pending.size()];
    return write.offset + (write.data ? sim_random(random) % write.data->size() : 0);
  }
  return draw / 2 % log.stable.size();
}

// What belongs to one place is found at another.
void misdirect(SimDisk& disk, std::uint64_t from, std::uint64_t to, std::uint64_t bytes) {
  SimContent sector(bytes);
  const int fd = disk.open(kLogPath, O_RDWR, 0);
  KEEL_CHECK(fd >= 0, "open for damage");
  struct iovec part = {sector.data(), sector.size()};
  if (disk.preadv2(fd, &part, 1, from - from % bytes, 0) == static_cast<ssize_t>(bytes)) {
    (void)disk.pwritev2(fd, &part, 1, to - to % bytes, 0);
  }
  (void)disk.close(fd);
}

// What a crash has left, in the time of the world that it is judged in: a pool's thread that reads
// the clock meanwhile must not see another one.
class LeftDisk : public SpareMemoryDisk {
 public:
  using SpareMemoryDisk::SpareMemoryDisk;
  std::uint64_t monotonic_ns() override { return world_.monotonic_ns(); }
  std::uint64_t realtime_ns() override { return world_.realtime_ns(); }

 private:
  Os& world_ = os();
};

}  // namespace

void boot(SimDisk& after, const Moment& moment, std::uint64_t crash_seed, SimFate fate) {
  if (fate != SimFate::kGarbage) {
    after.boot_with(moment.disk, [fate](const SimSector&) { return fate; });
  } else {
    SimCrash odds{.sector_bytes = crash_seed % 2 == 0 ? 512U : 4096U};
    if (moment.in_write && moment.disk.writes() == 1) {
      odds.ordered_percent = odds.keep_weight = odds.drop_weight = 0;
      odds.sector_bytes = moment.disk.sectors(odds.sector_bytes) == 1 ? 512 : odds.sector_bytes;
    }
    after.boot(moment.disk, crash_seed, odds);
  }
}

void Judge::crash_at_all_moments(std::uint64_t& random) {
  const CrashPlan& plan = run_.plan;
  const std::vector<Moment>& moments = record_.moments();
  for (std::size_t i = 0; i < moments.size(); ++i) {
    const Moment& moment = moments[i];
    if (i % plan.moment_stride != 0 && !moment.promised) {
      continue;
    }
    std::uint32_t crashes = plan.crashes;
    if (moment.in_write) {
      crashes = (crashes + 1) / 2;  // Nothing and all of it are the moments before and after.
    } else {
      crash_one(moment, 0, SimFate::kDrop);
      if (moment.disk.sectors() == 0) {
        crashes = 0;  // There is one thing that a crash can leave.
      } else {
        crash_one(moment, 0, SimFate::kKeep);
      }
    }
    for (std::uint32_t k = 0; k < crashes; ++k) {
      crash_one(moment, sim_random(random), SimFate::kGarbage);
    }
    for (std::uint32_t k = 0; k < plan.rot; ++k) {
      rot_one(moment, sim_random(random));
    }
  }
}

void Judge::crash_one(const Moment& moment, std::uint64_t crash_seed, SimFate fate) {
  LeftDisk after(run_.memory);
  const ScopedOs scope(after);
  boot(after, moment, crash_seed, fate);
  if (is_new(moment, after)) {
    check(moment, recover_by(crash_seed), crash_seed, fate);
  }
}

Recovered Judge::recover_one(const Moment& moment, std::uint64_t crash_seed, SimFate fate) {
  LeftDisk after(run_.memory);
  const ScopedOs scope(after);
  boot(after, moment, crash_seed, fate);
  (void)is_new(moment, after);
  Recovered recovered = recover_by(crash_seed);
  check(moment, recovered, crash_seed, fate);
  return recovered;
}

bool Judge::is_new(const Moment& moment, const SimDisk& after) {
  const SimContent image = after.image(kLogPath);
  std::uint64_t state = hash64(image.data(), image.size());
  const auto mix = [&state](std::uint64_t value) {
    state ^= value;
    state = sim_random(state);
  };
  mix(moment.forced);
  mix(moment.closed ? 1 : 0);
  for (const Versions& versions : {moment.home_before, moment.home}) {
    std::for_each(versions.begin(), versions.end(), mix);
  }
  const bool is_new = judged_.insert(state).second;
  ++(is_new ? run_.tally.states : run_.tally.same);
  return is_new;
}

Recovered Judge::recover_by(std::uint64_t state_seed) {
  const CrashPlan& plan = run_.plan;
  Pool& pool = plan.journal.pool != nullptr ? *plan.journal.pool : default_pool();
  const bool ahead = state_seed % 16 == 5;
  if (!ahead && plan.alone) {
    plan.alone(true);
  }
  Recovered recovered = recover(pool, run_.contents, ahead);
  if (!ahead && plan.alone) {
    plan.alone(false);
  }
  if (plan.on_state) {
    plan.on_state(recovered.report.last_sequence.value(),
                  recovered.ok ? static_cast<std::uint64_t>(recovered.report.end)
                               : 100 + static_cast<std::uint64_t>(recovered.error.code));
  }
  return recovered;
}

void Judge::show(const Moment& moment) const {
  if (run_.plan.show) {
    run_.plan.show(moment.step);
  }
}

void Judge::check(const Moment& moment, const Recovered& recovered, std::uint64_t crash_seed,
                  SimFate fate) {
  const auto fail = [&](const std::string& what) {
    show(moment);
    FAIL(what << "; crash seed " << crash_seed << ", fate " << static_cast<int>(fate) << ", "
              << record_.place_of(moment) << "; " << recovered.report.message());
  };
  if (!recovered.ok) {
    fail("recovery failed: " + recovered.error.message());
  }
  if (!recovered.fault.empty()) {
    fail(recovered.fault);
  }
  if (recovered.report.end == LogEnd::kDamaged) {
    fail("a crash was taken for damage");
  }
  run_.tally.torn += recovered.report.end == LogEnd::kTorn ? 1 : 0;
  const std::uint64_t last = recovered.report.last_sequence.value();
  if (last < moment.forced) {
    fail("a forced sequence is gone");
  }
  if (moment.closed &&
      (recovered.report.end != LogEnd::kClean || recovered.report.stable < recovered.report.head)) {
    fail("close() has not said where the log ends");
  }
  for (std::size_t id = 0; id < kCrashObjects; ++id) {
    const Version want = record_.expected(id, last);
    const bool right =
        recovered.in_log(id)
            ? (recovered.erased[id] ? is_erasure(want) : recovered.versions[id] == want)
            : moment.home[id] == want || moment.home_before[id] == want;
    if (!right) {
      fail("object " + std::to_string(id) + " has version " +
           std::to_string(recovered.versions[id]) + ", at home " + std::to_string(moment.home[id]) +
           ", expected " + std::to_string(want));
    }
  }
}

void Judge::rot_one(const Moment& moment, std::uint64_t rot_seed) {
  ++run_.tally.rot;
  std::uint64_t random = rot_seed;
  LeftDisk after(run_.memory);
  const ScopedOs scope(after);
  boot(after, moment, sim_random(random), rot_seed % 4 == 0 ? SimFate::kGarbage : SimFate::kKeep);
  const std::uint64_t kind = sim_random(random) % 3;
  for (std::uint64_t left = kind == 0 ? 1 : sim_random(random) % 4; left > 0; --left) {
    const std::uint64_t at = rot_place(moment, random);
    if (kind == 2) {
      misdirect(after, at, rot_place(moment, random), rot_seed % 8 < 4 ? 512 : 4096);
    } else {
      after.flip_bit(kLogPath, at, static_cast<unsigned>(random % 8));
    }
  }
  const Recovered recovered = recover_by(rot_seed);
  check_rot(moment, recovered, rot_seed, after);
}

void Judge::check_rot(const Moment& moment, const Recovered& recovered, std::uint64_t rot_seed,
                      const SimDisk& disk) {
  const auto fail = [&](const std::string& what) {
    show(moment);
    FAIL(what << "; rot seed " << rot_seed << ", " << record_.place_of(moment) << "; "
              << recovered.report.message());
  };
  if (!recovered.fault.empty()) {
    fail("delivered damage: " + recovered.fault);
  }
  const std::uint64_t head = recovered.report.head.value();
  const LogEvidence evidence = evidence_beyond(disk.image(kLogPath), head);
  if (recovered.ok != evidence.readable) {
    fail(recovered.ok ? "read without a superblock or a state"
                      : "refused, though it can be read: " + recovered.error.message());
  }
  const bool is_damage = recovered.report.end == LogEnd::kDamaged;
  if (recovered.ok && is_damage != (head < evidence.stable)) {
    fail((is_damage ? "damage that nothing vouches for" : "a cut of what is vouched for") +
         std::string(", stable up to ") + std::to_string(evidence.stable));
  }
  if (!recovered.ok || is_damage) {
    ++run_.tally.rot_detected;
  }
  const std::uint64_t last = recovered.report.last_sequence.value();
  // Cut before this life began: what was before is not known here.
  const bool known = recovered.ok && last >= record_.first_sequence();
  for (std::size_t id = 0; known && id < kCrashObjects; ++id) {
    const Version want = record_.expected(id, last);
    if (recovered.erased[id] ? !is_erasure(want)
                             : recovered.versions[id] != 0 && recovered.versions[id] != want) {
      fail("damage delivered as object " + std::to_string(id) + ", version " +
           std::to_string(recovered.versions[id]) + ", expected " + std::to_string(want));
    }
  }
  if (recovered.ok && !is_damage) {
    ++(last < moment.forced ? run_.tally.rot_cut : run_.tally.rot_harmless);
  }
}

}  // namespace keel_test::crash_lab
