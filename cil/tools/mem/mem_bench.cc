// keel mem bench: workloads on a pool and on the process's malloc, on the user's own machine.
//
// Each workload runs on each source in a child process; rows are printed as they come. A signal
// (Ctrl-C, SIGTERM, SIGHUP) ends the one under way, whose rows so far are printed, and then all.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "bench_child.h"
#include "command.h"
#include "interrupt.h"
#include "keel/measure/process.h"
#include "keel/vmap/system_limits.h"
#include "mem/bench_table.h"
#include "mem/machine.h"
#include "mem/workload.h"
#include "output.h"

namespace keel::tools {
namespace {

struct Options {
  BenchPlan plan;
  std::vector<std::string> workloads;
};

struct Step {
  std::string workload;
  const char* source;
  std::function<Json()> work;
};

template <class Run>
void add_for_both(std::vector<Step>& steps, const std::string& name, const Run& run) {
  steps.push_back({name, "keel", [run] { return run(true); }});
  steps.push_back({name, "malloc", [run] { return run(false); }});
}

std::vector<Step> steps_of(const Options& options) {
  const BenchPlan plan = options.plan;
  const auto wanted = [&options](const char* name) {
    const auto& names = options.workloads;
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto source = [](bool pool) -> const BufferSource& {
    return pool ? pool_source({}) : malloc_source();
  };
  std::vector<Step> steps;
  if (wanted("fifo")) {
    add_for_both(steps, "fifo", [=](bool pool) { return run_fifo(source(pool), plan); });
  }
  if (wanted("loop")) {
    add_for_both(steps, "loop", [=](bool pool) { return run_loop(source(pool), plan); });
  }
  if (wanted("fragmented")) {
    steps.push_back({"fragmented", "keel", [=] { return run_fragmented(plan); }});
  }
  if (wanted("limit")) {
    add_for_both(steps, "limit", [=](bool pool) { return run_limit(pool, plan); });
  }
  return steps;
}

// An eighth of what there is, at most what was planned: the limit is filled.
std::size_t affordable(std::size_t planned) {
  Bytes memory = machine_memory();
  if (const auto limit = control_group_limit()) {
    memory = std::min(memory, *limit);
  }
  const std::size_t share = memory.value() / 8 / (8 * kMiB) * (8 * kMiB);
  return std::clamp(share, 32 * kMiB, planned);
}

ChildOutcome run_step(const Step& step, std::size_t number, std::size_t count) {
  Progress progress;
  const std::uint64_t start_ns = bench::monotonic_ns();
  return run_in_child("mem bench", step.work, [&] {
    const auto seconds = (bench::monotonic_ns() - start_ns) / 1'000'000'000;
    progress.show(std::to_string(number) + " of " + std::to_string(count) + ": " + step.workload +
                  " on " + step.source + ", " + std::to_string(seconds) + " s");
  });
}

// `error`: of the first workload that failed, null if none did.
int finish(const Context& context, const BenchPlan& plan, const Json& rows, const Json& error) {
  const bool failed = !error.is_null();
  const int code = Interrupt::came() ? Interrupt::exit_code() : failed ? kWorldFailed : kOk;
  if (context.json) {
    Json result{{"ok", code == kOk},
                {"exit", code},
                {"interrupted", Interrupt::came()},
                {"seconds", plan.seconds},
                {"threads", plan.threads},
                {"limit_bytes", plan.limit_bytes},
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
  options.plan.limit_bytes = affordable(options.plan.limit_bytes);
  const std::vector<Step> steps = steps_of(options);
  const Interrupt interrupt;
  if (!context.json) {
    print_table_head();
  }
  Json rows = Json::array();
  Json error;
  for (std::size_t i = 0; i < steps.size() && !Interrupt::came(); ++i) {
    const ChildOutcome outcome = run_step(steps[i], i + 1, steps.size());
    if (!outcome.failure.empty()) {
      error = error.is_null() ? outcome.error : error;
      warn("mem bench", steps[i].workload + " on " + steps[i].source + " " + outcome.failure);
      continue;
    }
    if (!context.json) {
      print_table_rows(outcome.rows);
      std::fflush(stdout);
    }
    rows.insert(rows.end(), outcome.rows.begin(), outcome.rows.end());
  }
  return finish(context, options.plan, rows, error);
}

}  // namespace

void add_mem_bench(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    options.plan.threads = std::min(bench::usable_cpus(), 256U);
    app.add_option("--workload", options.workloads, "fifo, loop, fragmented, limit [all]")
        ->delimiter(',')
        ->check(CLI::IsMember({"fifo", "loop", "fragmented", "limit"}));
    add_seconds(app, "--seconds", options.plan.seconds, 0.05, 3600,
                "For each workload and source [2]");
    add_number(app, "--threads", options.plan.threads, 1, 256,
               "Of fifo (in pairs) and loop [the CPUs of this process]");
  };
  add_command<Options>(parent, context, "bench",
                       "Measure a memory pool against the process's malloc", define, run);
}

}  // namespace keel::tools
