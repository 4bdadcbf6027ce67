// Limits that a process meets: of file size (short writes, SIGXFSZ), of memory, mappings, locked
// memory, descriptors and threads; against the journal and against the pool alone.
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>

#include "campaigns.h"
#include "environment.h"
#include "faultfs/store.h"
#include "judge.h"
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

// A sanitizer's own memory, files and threads would meet these first; it locks no memory.
bool can_meet(const Limit& limit) {
#if defined(KEEL_TEST_SANITIZED)
  const std::string name = limit.name;
  return name == "file";
#else
  (void)limit;
  return true;
#endif
}

// Those that root is exempt from are met without the privilege.
std::vector<std::string> without_privilege(const std::string& name) {
  if (is_root() && name == "memlock") {
    return {"setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"};
  }
  if (is_root() && name == "nproc") {
    return {"setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"};
  }
  return {};
}

class LimitLab {
 public:
  LimitLab() : memory_(memory_root()), ledger_(memory_ / "ledger") {}

  void meet(Tally& tally, std::uint64_t seed) {
    const Limit& limit = kLimits[seed % std::size(kLimits)];
    if (!can_meet(limit)) {
      tally.miss(limit.name, "a sanitizer would meet it first");
      return;
    }
    std::uint64_t random = seed * 2654435769U;
    const std::string replay = replay_of("limits", seed);
    WriterPlan plan = WriterPlan::draw(random);
    plan.log = disk_ / "log";
    plan.ledger = ledger_.path();
    plan.transactions = limit.pool ? 1500 : 150;
    plan.limited = limit.name;
    plan.late = limit.late;
    plan.lock_memory = plan.limited == "memlock";
    if (plan.lock_memory && limit.pool) {
      plan.transactions = 100;  // each that is refused has made a chunk of memory and undone it
    }
    plan.limit =
        std::string(limit.name) == "file"
            ? limit.step * (1 + random_step(random) % (limit.most / limit.step))
            : limit.step * (limit.least + random_step(random) % (limit.most - limit.least));
    plan.ignore_xfsz = random_step(random) % 4 != 0;
    std::filesystem::remove(plan.log);
    ledger_.begin_life(0, {}, {});
    if (!tally.log_made(create_log(plan.log, {.size = kMinLogBytes}), replay)) {
      return;
    }
    if (plan.limited == "nproc" && is_root()) {
      for (const std::string& path : {disk_.path(), memory_.path(), plan.log, plan.ledger}) {
        (void)!::chown(path.c_str(), 65533, 65533);
      }
    }
    const auto before = without_privilege(limit.name);
    if (!can_run(before, plan.log)) {
      tally.miss(limit.name, "no program runs without the privilege that this one has");
      return;
    }
    auto words = plan.words();
    words[0] = limit.pool ? "pool" : "write";
    Helper process(words, -1, true, before);
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
    if (plan.lock_memory && !refused) {
      check_locking(tally, limit, what, replay);
    }
    const bool met = refused || killed || ledger_->refused != 0 ||
                     (plan.lock_memory && !limit.pool && ledger_->memory_locked == 0);
    if (limit.pool) {
      ++(code == kWriterNotOpened ? tally.unopened : met ? tally.tried : tally.unmet);
      return;
    }
    tally.count(judge(plan.log, *ledger_, ledger_.promises()), *ledger_, met, replay);
    if (!tally.ok()) {
      tally.failures.back() += what;
    }
  }

  [[nodiscard]] std::string note() const {
    return " unlocked=" + std::to_string(unlocked_) +
           " unlocked_pools=" + std::to_string(unlocked_pools_);
  }

 private:
  // The limit is far below what either wants to lock. A journal goes on without, and says so; a
  // pool refuses what it could not lock.
  void check_locking(Tally& tally, const Limit& limit, const std::string& what,
                     const std::string& replay) {
    if (limit.pool ? ledger_->refused == 0 : ledger_->memory_locked != 0) {
      tally.fail("memory was locked beyond the limit" + what, replay);
    }
    ++(limit.pool ? unlocked_pools_ : unlocked_);
  }

  // Whether the helper can be started so, from where it stands, and write to the file.
  bool can_run(const std::vector<std::string>& before, const std::string& file) {
    if (before.empty()) {
      return true;
    }
    const auto known = can_run_.find(before);
    if (known != can_run_.end()) {
      return known->second;
    }
    std::string line;
    for (const std::string& word : before) {
      line += word + " ";
    }
    line += "sh -c 'test -w \"$0\" && \"$1\" reap' '" + file + "' '" + helper_path() + "'";
    return can_run_[before] = run_command(line) == 0;
  }

  Scratch disk_;
  Scratch memory_;
  LedgerFile ledger_;
  std::map<std::vector<std::string>, bool> can_run_;
  std::uint64_t unlocked_ = 0;        // journals that went on without locked memory
  std::uint64_t unlocked_pools_ = 0;  // pools that refused memory that they could not lock
};

}  // namespace

Tally run_limits(std::uint64_t first, std::uint64_t count) {
  Tally tally("limits");
  LimitLab lab;
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    lab.meet(tally, seed);
  }
  tally.demand_met(replay_of("limits", first));
  tally.note = lab.note();
  return tally;
}

}  // namespace keel_test
