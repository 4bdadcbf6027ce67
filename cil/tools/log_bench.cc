// keel log bench: the journal's workloads, on the user's own machine and file system.
//
// Each workload has a fresh log, DIR/keel-bench.log, which is removed after it. It runs in a child
// process that ends without closing the journal, as a kill would end it; for the hot set another
// child then opens the log, and times that. A signal (Ctrl-C, SIGTERM, SIGHUP) ends the workload
// under way, whose figures so far are printed, and then all; so does a reader that goes away.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "bench_child.h"
#include "command.h"
#include "interrupt.h"
#include "keel/cil/log_file.h"
#include "keel/measure/process.h"
#include "keel/measure/ticks.h"
#include "log_bench/keel_engine.h"
#include "log_bench/load.h"
#include "log_bench/load_json.h"
#include "log_bench/table.h"
#include "output.h"
#include "until_free.h"

namespace keel::tools {
namespace {

using bench::KeelEngine;

constexpr const char* kName = "log bench";

struct Options {
  std::vector<std::string> workloads;
  unsigned threads = 1;
  double seconds = 2;
  std::uint64_t updates = 1'000'000;
  Bytes log{};  // 0: each workload's own
  std::string dir = ".";
  bool buffered = false;
};

struct Step {
  bench::LoadPlan plan;
  bench::EngineConfig config;
};

Step step_of(const Options& options, const std::string& name) {
  Step step;
  bench::LoadPlan& plan = step.plan;
  plan.workload = *bench::workload_of(name);
  plan.object_bytes = bench::usual_object_bytes(plan.workload);
  plan.threads = options.threads;
  plan.seconds = options.seconds;
  plan.updates = options.updates;
  plan.dir = options.dir;
  plan.stopped = Interrupt::came;
  bench::EngineConfig& config = step.config;
  config.dir = options.dir;
  config.use = bench::use_of(plan.workload);
  config.threads = config.use == bench::EngineUse::kHotSet ? 1 : plan.threads;
  config.object_bytes = plan.object_bytes;
  config.objects = plan.objects;
  config.log = options.log != Bytes(0) ? options.log : bench::usual_log_bytes(plan.workload);
  config.fresh = false;  // It is made before.
  return step;
}

// The log of a step, gone with the object.
class TemporaryLog {
 public:
  TemporaryLog(const Step& step, bool buffered, Progress& progress)
      : path_(KeelEngine::log_path(step.config.dir)) {
    LogConfig config{.size = step.config.log, .buffered = buffered};
    config.progress = [&progress](Bytes done, Bytes most) {
      Interrupt::check("no log was made");
      progress.show("writing the log", done, most);
    };
    require(create_log(path_, config), path_);
  }
  ~TemporaryLog() { (void)::unlink(path_.c_str()); }
  TemporaryLog(const TemporaryLog&) = delete;
  TemporaryLog& operator=(const TemporaryLog&) = delete;

 private:
  const std::string path_;
};

// In a child.
Json work(const Step& step, bool buffered) {
  auto engine = KeelEngine::open(step.config, nullptr, buffered);
  require(engine, KeelEngine::log_path(step.config.dir));
  const auto result = bench::run_load(**engine, step.plan);
  if (!result) {
    throw Failure(KeelEngine::log_path(step.config.dir), result.error());
  }
  Json row = bench::to_json(step.plan, *result);
  (void)engine->release();  // Not closed, and its threads end with the process.
  return row;
}

// Likewise, after that one has ended.
Json reopen(const Step& step, bool buffered) {
  const auto engine =
      until_free([&] { return KeelEngine::open(step.config, nullptr, buffered); }, Interrupt::came);
  require(engine, KeelEngine::log_path(step.config.dir));
  return (*engine)->open_seconds() * 1e3;
}

ChildOutcome run_step(const Step& step, bool buffered, const std::string& title) {
  Progress progress;
  progress.show(title);
  const TemporaryLog log(step, buffered, progress);
  const std::uint64_t start_ns = bench::monotonic_ns();
  const auto tick = [&] {
    const auto seconds = (bench::monotonic_ns() - start_ns) / 1'000'000'000;
    progress.show(title + ", " + std::to_string(seconds) + " s");
  };
  ChildOutcome outcome = run_in_child(
      kName, [&] { return work(step, buffered); }, tick);
  if (outcome.failure.empty() && step.config.use == bench::EngineUse::kHotSet) {
    const ChildOutcome opened = run_in_child(
        kName, [&] { return reopen(step, buffered); }, tick);
    outcome.failure = opened.failure;
    outcome.error = opened.error;
    outcome.rows["reopen_ms"] = opened.rows;
  }
  return outcome;
}

// `error`: of the first workload that failed, null if none did.
int finish(const Context& context, const Options& options, const Json& rows, const Json& error) {
  const bool failed = !error.is_null();
  const int code = Interrupt::came() ? Interrupt::exit_code() : failed ? kWorldFailed : kOk;
  if (context.json) {
    Json result{{"ok", code == kOk},
                {"exit", code},
                {"interrupted", Interrupt::came()},
                {"seconds", options.seconds},
                {"threads", options.threads},
                {"rows", rows}};
    if (failed) {
      result["error"] = error;
    }
    print_json(result);
  }
  return code;
}

int run(const Context& context, const Options& given) {
  Options options = given;
  if (options.workloads.empty()) {
    options.workloads = {"w1", "w2", "w3", "w4", "w4b"};
  }
  const Interrupt interrupt;
  Json rows = Json::array();
  Json error;
  bool has_head = context.json;
  for (std::size_t i = 0; i < options.workloads.size() && !Interrupt::came(); ++i) {
    const std::string& name = options.workloads[i];
    const std::string title =
        std::to_string(i + 1) + " of " + std::to_string(options.workloads.size()) + ": " + name;
    ChildOutcome outcome;
    try {
      outcome = run_step(step_of(options, name), options.buffered, title);
    } catch (const Failure&) {
      if (!Interrupt::came()) {
        throw;
      }
      break;  // While the log was made: there are no figures.
    }
    if (!outcome.failure.empty()) {
      error = error.is_null() ? outcome.error : error;
      warn(kName, name + " " + outcome.failure);
      continue;
    }
    if (!std::exchange(has_head, true)) {
      print_log_table_head();
    }
    if (!context.json) {
      print_log_table_row(outcome.rows);
      std::fflush(stdout);
    }
    rows.push_back(outcome.rows);
  }
  return finish(context, options, rows, error);
}

}  // namespace

void add_log_bench(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    options.threads = std::min(bench::usable_cpus(), 256U);
    app.add_option("--workload", options.workloads,
                   "w1 (256 B, each commit made stable), w2 (4 KiB, likewise), w3 (256 B, forced "
                   "every 100 ms), w4 (hot set of 1,000 x 4 KiB, forced once), w4b (the same, "
                   "forced every 100 ms) [all]")
        ->delimiter(',')
        ->check(CLI::IsMember({"w1", "w2", "w3", "w4", "w4b"}));
    add_number(app, "--threads", options.threads, 1, 256, "Of w1 to w3 [the CPUs of this process]");
    add_seconds(app, "--seconds", options.seconds, 0.01, 3600, "Of each of w1 to w3 [2]");
    add_number(app, "--updates", options.updates, 1, std::uint64_t{1} << 40,
               "Of w4 and w4b [1000000]");
    add_size(app, "--size", options.log, "Size of the log [64M; of w3 256M]");
    app.add_option("--dir", options.dir,
                   "Where to make the log, on the file system to be measured [.]");
    app.add_flag("--buffered", options.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "bench", "Measure a journal on a log of its own", define,
                       run);
}

}  // namespace keel::tools
