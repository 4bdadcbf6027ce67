// The whole machine goes: a guest kernel with a real ext4 or XFS, whose virtual machine is killed
// while the writer runs in it.
//
// Half of the disks keep what they were given: what the guest's kernel had not passed on is lost.
// The other half have a cache that is lost too, but for what they were told to flush (faultfs). A
// disk goes through several cuts, so the guest finds its log as the one before left it.
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>

#include "campaigns.h"
#include "disk_lab.h"
#include "guest.h"
#include "guest_machine.h"
#include "keel/cil/log_file.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

// An emulated machine takes some seconds to come up, more where others want the CPUs.
constexpr std::chrono::minutes kMostWait{10};
// What a file system can be asked to survive of its own.
constexpr Cut kFairCuts[] = {Cut::kNone, Cut::kAll, Cut::kWrites, Cut::kTorn4096};

// Seeds of one disk: those behind a multiple of it.
constexpr std::uint64_t kCutsOfDisk = 5;
// The log that has room for large objects.
constexpr std::uint64_t kWideLog = std::uint64_t{16} << 20U;

struct Moment {
  bool early = false;            // while the log is opened, and recovered
  bool closing = false;          // or while the writer closes it
  std::uint64_t begun = 0;       // else when so many transactions are
  std::uint64_t later_usec = 0;  // and this much later
};

Moment draw_moment(std::uint64_t seed, std::uint64_t& random, bool large) {
  Moment moment;
  moment.early = seed % 7 == 6;
  moment.closing = seed % 7 == 3;
  moment.begun = 1 + random_step(random) % (large ? 100 : 1000);
  moment.later_usec = random_step(random) % (moment.early ? 500'000 : 20'000);
  return moment;
}

// False if it does not come.
bool wait_for(const Moment& moment, GuestMachine& guest, const Ledger& ledger) {
  const auto end = std::chrono::steady_clock::now() + kMostWait;
  const auto over = [&] {
    return moment.early     ? guest.said().find(kGuestMounted) != std::string::npos
           : moment.closing ? ledger.closing != 0
                            : begun_of(ledger) >= moment.begun || ledger.done != 0;
  };
  while (!over()) {
    if (!guest.runs() || ledger.failed_with != 0 || std::chrono::steady_clock::now() > end) {
      return false;
    }
    (void)::usleep(500);
  }
  (void)::usleep(static_cast<useconds_t>(moment.later_usec));
  return guest.runs() && ledger.failed_with == 0;
}

WriterPlan plan_of(std::uint64_t& random, bool wide) {
  WriterPlan plan = WriterPlan::draw(random);
  plan.uring = random_step(random) % 2 == 0;  // the guest's kernel has it, whether ours has or not
  plan.large = wide && random_step(random) % 2 == 0;
  return plan;
}

// One disk of a run.
struct Disk {
  DiskLab lab;
  std::string type;
  std::uint64_t first;  // seed
};

std::unique_ptr<Disk> make_disk(std::uint64_t seed) {
  const std::uint64_t kind = (seed - 1) / kCutsOfDisk % 4;
  const std::string type = kind % 2 == 0 ? "ext4" : "xfs";
  const auto under = kind < 2 ? DiskLab::Under::kFaultFs : DiskLab::Under::kFile;
  return std::unique_ptr<Disk>(new Disk{{type, under}, type, seed});
}

void cut_once(const GuestImage& image, Disk& disk, Tally& tally, std::uint64_t seed) {
  DiskLab& lab = disk.lab;
  std::uint64_t random = seed * 2654435769U;
  const std::string replay = "--only qemu --first " + std::to_string(disk.first) + " --count " +
                             std::to_string(seed - disk.first + 1);
  const bool anew = random_step(random) % 6 == 0 || seed == disk.first;
  const bool wide = random_step(random) % 2 == 0;
  if (anew && !tally.log_made(lab.make_log(wide ? kWideLog : kMinLogBytes.value()), replay)) {
    return;
  }
  WriterPlan plan = plan_of(random, std::filesystem::file_size(lab.log()) >= kWideLog);
  const Moment moment = draw_moment(seed, random, plan.large);
  if (moment.closing) {
    plan.transactions = static_cast<std::uint32_t>(1 + moment.begun / plan.threads);
  }
  if (!lab.take_down()) {
    tally.fail("could not be unmounted", replay);
    return;
  }
  GuestMachine guest(image, lab.file(), disk.type, lab.ledger(), plan);
  const bool came = wait_for(moment, guest, *lab.ledger());
  const std::string stood = guest.runs() ? "killed" : "ended by itself";
  guest.kill();
  const std::string where = " (" + disk.type + (lab.faults() != nullptr ? ", volatile" : "") +
                            (plan.buffered ? ", buffered" : ", direct") +
                            (plan.uring ? ", io_uring" : ", sync") + "); the guest said:\n" +
                            guest.said();
  if (!came) {
    const auto error = lab.ledger()->failed_with.load();
    const std::string what =
        error == 0 ? "the machine was " + stood + " before it came as far as it should"
                   : "the writer met error " + std::to_string(error);
    tally.fail(what + where, replay);
    return;
  }
  if (lab.faults() != nullptr) {
    lab.faults()->cut(kFairCuts[random_step(random) % std::size(kFairCuts)], random_step(random));
  }
  if (!lab.bring_up()) {
    tally.fail("could not be mounted again: " + lab.why() + where, replay);
    return;
  }
  // A writer that had closed its log was not cut off.
  lab.judge_life(tally, lab.ledger()->done == 0, replay);
  if (!tally.ok()) {
    tally.failures.back() += where;
  }
}

}  // namespace

Tally run_qemu(std::uint64_t first, std::uint64_t count) {
  Tally tally("qemu");
  std::string why = kWhyNoMount;
  const auto image = is_root() ? GuestImage::make(why) : nullptr;
  if (image == nullptr) {
    tally.miss("guest", why);
    return tally;
  }
  std::unique_ptr<Disk> disk;
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    if (disk == nullptr || (seed - 1) % kCutsOfDisk == 0) {
      disk.reset();
      disk = make_disk(seed);
    }
    if (disk->lab.ready()) {
      cut_once(*image, *disk, tally, seed);
    } else {
      tally.miss(disk->type, disk->lab.why());
    }
  }
  tally.demand_met(replay_of("qemu", first));
  return tally;
}

}  // namespace keel_test
