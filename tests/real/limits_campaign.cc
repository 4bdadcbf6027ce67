// Limits that a process meets: of file size (short writes, SIGXFSZ), of memory, mappings, locked
// memory, descriptors and threads; against the journal and against the pool alone. And a control
// group at its limit of memory, whose processes the kernel kills.
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "campaigns.h"
#include "environment.h"
#include "faultfs/store.h"
#include "keel/cil/log_file.h"
#include "support/test_seed.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;

struct Limit {
  const char* name;  // WriterPlan::limited
  std::uint64_t least;
  std::uint64_t most;
  std::uint64_t step;
  bool late;
  bool pool;  // the pool alone
};

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
constexpr Limit kLimits[] = {
    {"file", 512, 1040384, 512, true, false}, {"file", 512, 1040384, 512, false, false},
    {"data", 380, 480, kMiB, false, false},   {"data", 1, 64, kMiB, true, false},
    {"data", 1, 64, kMiB, true, true},        {"data", 380, 480, kMiB, false, true},
    {"nofile", 3, 12, 1, false, false},       {"nofile", 3, 12, 1, true, false},
    {"nofile", 3, 12, 1, false, true},        {"memlock", 0, 64, 65536, false, false},
    {"memlock", 0, 64, 65536, true, true},    {"maps", 0, 60, 1, true, false},
    {"maps", 0, 200, 1, false, false},        {"maps", 0, 60, 1, true, true},
    {"maps", 0, 200, 1, false, true},         {"nproc", 0, 8, 1, false, false},
    {"nproc", 0, 8, 1, true, false},
};

// A sanitizer's own memory, files and threads would meet these first.
bool can_meet(const Limit& limit) {
#if defined(KEEL_TEST_SANITIZED)
  const std::string name = limit.name;
  return name == "file" || name == "memlock";
#else
  (void)limit;
  return true;
#endif
}

// Those that root is exempt from are taken without the privilege.
std::vector<std::string> without_privilege(const std::string& name) {
  if (!is_root() || !have_program("setpriv")) {
    return {};
  }
  if (name == "memlock") {
    return {"setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"};
  }
  if (name == "nproc") {
    return {"setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"};
  }
  return {};
}

class LimitLab {
 public:
  LimitLab()
      : memory_(std::filesystem::exists("/dev/shm") ? "/dev/shm" : ""),
        ledger_(memory_ / "ledger") {}

  void meet(Tally& tally, std::uint64_t seed) {
    const Limit& limit = kLimits[seed % std::size(kLimits)];
    if (!can_meet(limit)) {
      return;
    }
    std::uint64_t random = seed * 2654435769U;
    const std::string replay = replay_of("limits", seed);
    WriterPlan plan;
    plan.log = disk_ / "log";
    plan.ledger = ledger_.path();
    plan.seed = random_step(random);
    plan.threads = 1 + static_cast<std::uint32_t>(random_step(random) % 4);
    plan.transactions = limit.pool ? 1500 : 150;
    plan.depth = static_cast<std::uint32_t>(random_step(random) % 5);
    plan.uring = random_step(random) % 2 == 0;
    plan.force = 1 + static_cast<std::uint32_t>(random_step(random) % 6);
    plan.limited = limit.name;
    plan.late = limit.late;
    plan.limit =
        std::string(limit.name) == "file"
            ? limit.step * (1 + random_step(random) % (limit.most / limit.step))
            : limit.step * (limit.least + random_step(random) % (limit.most - limit.least));
    plan.ignore_xfsz = random_step(random) % 4 != 0;
    std::filesystem::remove(plan.log);
    ledger_.begin_life(0, {}, {});
    if (!create_log(plan.log, {.size = kMinLogBytes}).ok()) {
      tally.fail("the log could not be made", replay);
      return;
    }
    if (plan.limited == "nproc" && is_root()) {
      for (const std::string& path : {disk_.path(), memory_.path(), plan.log, plan.ledger}) {
        (void)!::chown(path.c_str(), 65533, 65533);
      }
    }
    auto words = plan.words();
    words[0] = limit.pool ? "pool" : "write";
    Helper process(words, -1, true, without_privilege(limit.name));
    const int code = process.wait();
    ++tally.lives;
    const std::string what = std::string(" (") + (limit.pool ? "pool" : "journal") + ", " +
                             limit.name + " " + std::to_string(plan.limit) +
                             (limit.late ? ", late)" : ", early)");
    const bool refused = code == kWriterFailed || code == kWriterNotOpened;
    const bool killed = code == 128 + SIGXFSZ && !plan.ignore_xfsz;
    tally.failed_writers += refused || killed ? 1 : 0;
    if (code != kWriterDone && !refused && !killed) {
      tally.fail("the process ended with " + std::to_string(code) + what, replay);
      return;
    }
    if (limit.pool) {
      ++tally.tried;
      return;
    }
    const PromisesCopy promises = ledger_.promises();
    tally.promised += promises.forced != 0 ? 1 : 0;
    tally.count(judge(plan.log, *ledger_, promises), replay);
    if (!tally.ok()) {
      tally.failures.back() += what;
    }
  }

 private:
  Scratch disk_;
  Scratch memory_;
  LedgerFile ledger_;
};

}  // namespace

Tally run_limits(std::uint64_t first, std::uint64_t count) {
  Tally tally("limits");
  LimitLab lab;
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    lab.meet(tally, seed);
  }
  return tally;
}

Tally run_memory(std::uint64_t first, std::uint64_t count) {
  Tally tally("memory");
  std::string why;
  const auto group = ControlGroup::make("memory", why);
  if (group == nullptr) {
    tally.skipped = why;
    return tally;
  }
  const Scratch disk;
  const Scratch memory(std::filesystem::exists("/dev/shm") ? "/dev/shm" : "");
  LedgerFile ledger(memory / "ledger");
  const std::string log = disk / "log";
  if (!create_log(log, {.size = kMinLogBytes}).ok()) {
    tally.fail("the log could not be made", replay_of("memory", first));
    return tally;
  }
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    const std::string replay = replay_of("memory", seed);
    std::uint64_t random = seed * 40503;
    const std::uint64_t mib = 24 + random_step(random) % 64;
    const std::string bytes = std::to_string(mib << 20U);
    if (!group->write(group->version2() ? "memory.max" : "memory.limit_in_bytes", bytes)) {
      tally.skipped = "the limit of a control group cannot be set";
      return tally;
    }
    WriterPlan plan;
    plan.log = log;
    plan.ledger = ledger.path();
    plan.seed = random_step(random);
    plan.threads = 1 + static_cast<std::uint32_t>(random_step(random) % 4);
    plan.transactions = 400;
    plan.uring = random_step(random) % 2 == 0;
    // Some stay below the limit, though close to it; most do not.
    plan.hungry_mib = static_cast<std::uint32_t>(random_step(random) % 4 == 0 ? 4 : 96);
    // Joined before it begins, by itself.
    Helper writer(
        plan.words(), -1, true,
        {"sh", "-c", "echo $$ >" + group->path() + "/cgroup.procs && exec \"$0\" \"$@\""});
    const int code = writer.wait();
    ++tally.lives;
    tally.failed_writers += code == 128 + SIGKILL ? 1 : 0;
    if (code != 128 + SIGKILL && code != kWriterDone && code != kWriterNotOpened &&
        code != kWriterFailed) {
      tally.fail("the writer ended with " + std::to_string(code) + " at " + bytes + " bytes",
                 replay);
      break;
    }
    tally.judge_life(log, ledger, replay);
  }
  return tally;
}

}  // namespace keel_test
