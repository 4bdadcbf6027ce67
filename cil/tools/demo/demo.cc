// keel demo: real files into a journal, a process killed in the middle of it, and a look at what is
// left.
//
// A round is one log. It has one to three lives: a child process recovers the log, ingests, edits
// and forces, and is killed with SIGKILL; then this process recovers the log into memory and
// compares it with the files. The next life goes on with the same log, so recovery is tried over
// incarnations.
//
// ingest.h is the child, life.h the kill, recovered.h and judge.h the comparison, summary.h the
// table.

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <optional>

#include "command.h"
#include "demo/cleanup.h"
#include "demo/judge.h"
#include "demo/life.h"
#include "demo/plan.h"
#include "demo/random.h"
#include "demo/summary.h"
#include "keel/base/os.h"
#include "keel/cil/journal.h"
#include "keel/cil/log_file.h"
#include "log_text.h"
#include "output.h"
#include "until_free.h"

namespace keel::tools {
namespace {

// Trees of real files that a machine which builds C++ has.
constexpr std::array<const char*, 3> kDefaultTrees{"/usr/include", "/usr/lib/gcc", "/usr/share"};
constexpr std::uint32_t kMostLives = 3;
// The log holds the tree this many times; what all lives may write is five sixths of it.
constexpr std::uint64_t kTreesInLog = 4;
constexpr Bytes kLeastLog{std::uint64_t{32} << 20};
constexpr Bytes kLogForThread{std::uint64_t{8} << 20};

struct Options {
  std::string directory;
  Bytes limit{std::uint64_t{64} << 20};
  std::uint32_t rounds = 3;
  std::uint32_t threads = 4;
  std::optional<std::uint64_t> seed;
  std::string log;
  bool buffered = false;
};

std::string default_tree() {
  for (const char* tree : kDefaultTrees) {
    struct stat found {};
    if (::stat(tree, &found) == 0 && S_ISDIR(found.st_mode)) {
      return tree;
    }
  }
  return kDefaultTrees[0];
}

// A memfd with the plan in it, which the children inherit.
class PlanFile {
 public:
  explicit PlanFile(const Plan& plan) : fd_(os().memfd_create("keel-demo-plan", 0)) {
    if (fd_ < 0) {
      throw Failure("", system_error(-fd_, "hold the plan"));
    }
    std::string bytes = encode(plan);
    for (std::size_t done = 0; done < bytes.size();) {
      struct iovec part {
        bytes.data() + done, bytes.size() - done
      };
      const ssize_t wrote = os().pwritev2(fd_, &part, 1, done, 0);
      if (wrote < 0) {
        (void)os().close(fd_);
        throw Failure("", system_error(static_cast<int>(-wrote), "hold the plan"));
      }
      done += static_cast<std::size_t>(wrote);
    }
  }
  ~PlanFile() { (void)os().close(fd_); }
  PlanFile(const PlanFile&) = delete;
  PlanFile& operator=(const PlanFile&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  const int fd_;
};

class Demo {
 public:
  Demo(const Options& options, bool json)
      : options_(options), seed_(options.seed.value_or(os().random64() >> 1U)), json_(json) {}

  Summary run() {
    const std::uint64_t started = os().monotonic_ns();
    plan();
    Scratch scratch(options_.log);
    const PlanFile plan_file(plan_);
    for (std::uint32_t round = 1; round <= options_.rounds && summary_.held(); ++round) {
      scratch.remove_log();
      const Bytes data = make_log(round, scratch.log());
      try {
        play_round(round, data, scratch, plan_file.fd());
      } catch (...) {
        // Whatever ended it, what is in the log may tell why.
        scratch.keep();
        progress_.clear();
        warn(scratch.log(), "the log is kept");
        throw;
      }
    }
    if (!summary_.held() || !options_.log.empty()) {
      scratch.keep();
      summary_.kept_log = scratch.log();
    }
    summary_.duration_ns = os().monotonic_ns() - started;
    return std::move(summary_);
  }

 private:
  void plan() {
    summary_.directory = options_.directory.empty() ? default_tree() : options_.directory;
    progress_.show("looking at " + summary_.directory);
    plan_ = make_plan(summary_.directory, options_.limit);
    summary_.seed = seed_;
    summary_.rounds = options_.rounds;
    summary_.threads = options_.threads;
    summary_.files = plan_.files.size();
    summary_.objects = plan_.objects.size();
    summary_.unreadable = plan_.unreadable;
    summary_.bytes = plan_.bytes;
  }

  // Once nothing that the user gave can be wrong any more.
  void print_heading() const {
    if (!json_) {
      std::printf("keel demo: %s in %s files of %s as %s objects, seed %llu\n\n",
                  human(plan_.bytes).c_str(), grouped(summary_.files).c_str(),
                  printable(summary_.directory).c_str(), grouped(summary_.objects).c_str(),
                  static_cast<unsigned long long>(seed_));
      std::fflush(stdout);
    }
  }

  void play_round(std::uint32_t round, Bytes data, Scratch& scratch, int plan_fd) {
    Random random(derive_seed(seed_, round, 0));
    // The first round always goes over an incarnation.
    const auto least = round == 1 ? 1U : 0U;
    const auto lives = 1 + least + static_cast<std::uint32_t>(random.below(kMostLives - least));
    Ledger ledger;
    for (std::uint32_t life = 1; life <= lives; ++life) {
      LifeOptions options;
      options.log = scratch.log();
      options.buffered = options_.buffered;
      options.seed = seed_;
      options.life = life;
      options.threads = options_.threads;
      options.budget = Bytes(data.value() / 6 * 5 / lives * life);
      options.plan_fd = plan_fd;
      LifeRow row = live(round, options, random.next(), ledger);
      const bool held = row.findings.empty();
      if (!held) {
        scratch.keep();  // Before anything is printed: nobody may read it (SIGPIPE).
      }
      progress_.clear();
      report_findings(row);
      summary_.rows.push_back(std::move(row));
      if (!held) {
        return;
      }
    }
  }

  Bytes make_log(std::uint32_t round, const std::string& log) {
    LogConfig config;
    config.size = Bytes(plan_.bytes.value() * kTreesInLog) + kLeastLog +
                  Bytes(kLogForThread.value() * options_.threads);
    config.buffered = options_.buffered;
    const std::string act = "round " + std::to_string(round) + ": making the log,";
    config.progress = [this, &act](Bytes done, Bytes most) {
      progress_.show(act.c_str(), done, most);
    };
    const auto info = create_log(log, config);
    require(info, log);
    if (round == 1) {
      progress_.clear();
      (void)warn_of(log, *info);
      print_heading();
    }
    summary_.log = info->file;
    return info->data;
  }

  LifeRow live(std::uint32_t round, const LifeOptions& options, std::uint64_t seed,
               Ledger& ledger) {
    const std::string name = "round " + std::to_string(round) + " of " +
                             std::to_string(options_.rounds) + ", life " +
                             std::to_string(options.life) + ": ";
    LifeRow row;
    row.round = round;
    row.life = options.life;
    row.through_journal = Random(seed).one_in(2);
    row.result = live_and_die(options, make_kill_plan(seed), ledger,
                              [this, &name](const char* act, double share) {
                                const int percent = static_cast<int>(share * 100);
                                progress_.show(name + act + " " + std::to_string(percent) + " %");
                              });
    progress_.show(name + "killed; recovering");
    Recovered recovered(plan_.objects.size());
    row.report = recover(options, row.through_journal, recovered);
    progress_.show(name + "comparing with the files");
    judge_transactions(recovered, row.report, ledger, row.findings);
    judge_bytes(recovered, plan_, seed_, row.findings);
    row.objects = recovered.object_count();
    row.transactions = recovered.transaction_count();
    ledger.settle(recovered);
    return row;
  }

  // Both ways in must find the same; opening also writes to the log, as a next user would.
  RecoveryReport recover(const LifeOptions& options, bool through_journal, Recovered& recovered) {
    const RecoveryHandler handler = [&recovered](const RecoveredCheckpoint& checkpoint) {
      recovered.checkpoint(checkpoint);
      return Status{};
    };
    if (through_journal) {
      JournalConfig config;
      config.buffered = options.buffered;
      config.salvage = true;  // damage is a finding here
      const auto journal = until_free([&] { return Journal::open(options.log, config, handler); });
      require(journal, options.log);
      return (*journal)->recovery();
    }
    const auto report = until_free([&] {
      return scan_log(options.log, handler, {options.buffered, {}});
    });
    require(report, options.log);
    return *report;
  }

  static void report_findings(const LifeRow& row) {
    for (const std::string& text : row.findings.texts()) {
      std::fprintf(stderr, "keel: round %u, life %u: %s\n", row.round, row.life, text.c_str());
    }
    if (row.findings.count() > row.findings.texts().size()) {
      std::fprintf(stderr, "keel: round %u, life %u: and %s more\n", row.round, row.life,
                   grouped(row.findings.count() - row.findings.texts().size()).c_str());
    }
  }

  const Options& options_;
  const std::uint64_t seed_;
  const bool json_;
  Progress progress_;
  Plan plan_;
  Summary summary_;
};

int run(const Context& context, const Options& options) {
  if (options.limit == Bytes(0)) {
    throw Failure(kUsage, "", "--limit: at least one byte", "usage");
  }
  const Summary summary = Demo(options, context.json).run();
  if (context.json) {
    print_json(to_json(summary));
  } else {
    print_text(summary);
    if (!summary.kept_log.empty()) {
      std::printf("  %-14s%s\n", "log kept", printable(summary.kept_log).c_str());
    }
  }
  return summary.held() ? kOk : kCheckFailed;
}

}  // namespace

void add_demo(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("DIR", options.directory, "The tree of files to ingest [/usr/include]");
    add_size(app, "--limit", options.limit, "Most bytes to take from it [64M]");
    add_number(app, "--rounds", options.rounds, 1, 100000, "Logs to play with [3]");
    add_number(app, "--seed", options.seed, 0, kMostNumber,
               "Of edits, choices and kills [random, printed]");
    add_number(app, "--threads", options.threads, 1, kMostThreads, "That commit side by side [4]");
    app.add_option("--log", options.log,
                   "Make the log there and keep the last one [in $TMPDIR or /var/tmp, removed]");
    app.add_flag("--buffered", options.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "demo",
                       "Ingest real files, crash, recover, compare with the files", define, run);
}

}  // namespace keel::tools
