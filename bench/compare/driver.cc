// journal_driver: how many commits a second does a journal or a store with a log take, and how long
// does one take? One workload on one engine; the scoreboard starts it for its rows.
//
// The run is in a child process that ends without closing the engine, as a kill would end it; for
// the hot set the parent then opens what it has left, and times that. Files are in a directory of
// their own below --dir, removed at the end and at a signal.
// Exit status: 0 if the workload ran, 1 if it could not, 2 for wrong use, 77 if the engine is not
// in this build.

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string>

#include "compare/engines.h"
#include "log_bench/load_json.h"
#include "support/temp_dir.h"
#include "until_free.h"

namespace keel::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kNotBuilt = 77;

struct Options {
  std::string engine;
  std::string workload;
  std::string dir = "/var/tmp";
  unsigned threads = 1;
  std::size_t object_bytes = 0;  // 0: the workload's own
  double seconds = 2;
  std::uint64_t updates = 1'000'000;
  std::uint64_t log_mib = 0;  // 0: the workload's own
  bool json = false;
};

LoadPlan plan_of(const Options& options, const std::string& dir) {
  LoadPlan plan;
  plan.workload = *workload_of(options.workload);
  plan.threads = options.threads;
  plan.object_bytes =
      options.object_bytes != 0 ? options.object_bytes : usual_object_bytes(plan.workload);
  plan.seconds = options.seconds;
  plan.updates = options.updates;
  plan.dir = dir;
  return plan;
}

EngineConfig config_of(const Options& options, const LoadPlan& plan) {
  EngineConfig config;
  config.dir = plan.dir;
  config.use = use_of(plan.workload);
  config.threads = config.use == EngineUse::kHotSet ? 1 : plan.threads;
  config.object_bytes = plan.object_bytes;
  config.objects = plan.objects;
  // A fragmented pool has little to give: a small log lets go of snapshots early.
  const bool fragmented = options.engine == "keel-fragmented" || options.engine == "keel-retrying";
  const Bytes usual = fragmented ? Bytes(std::uint64_t{24} << 20) : usual_log_bytes(plan.workload);
  config.log = options.log_mib != 0 ? Bytes(options.log_mib << 20) : usual;
  return config;
}

int fail(const Error& error) {
  std::fprintf(stderr, "journal_driver: %s\n", error.message().c_str());
  return 1;
}

// In the child. Its figures go to `out`.
int run(const EngineSetup& setup, const EngineConfig& config, const LoadPlan& plan, int out) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto engine = setup.open(config);
  if (!engine) {
    return fail(engine.error());
  }
  const auto result = run_load(**engine, plan);
  if (!result) {
    return fail(result.error());
  }
  const std::string text = to_json(plan, *result).dump();
  // Less than a pipe holds.
  const bool wrote = ::write(out, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::_exit(wrote ? 0 : 1);
}

// Empty if the child has failed; it has said why.
std::string run_in_child(const EngineSetup& setup, const EngineConfig& config,
                         const LoadPlan& plan) {
  int ends[2];
  if (::pipe(ends) != 0) {
    return "";
  }
  const pid_t child = TempDir::fork_child();
  if (child == 0) {
    ::close(ends[0]);
    ::_exit(run(setup, config, plan, ends[1]));
  }
  ::close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], part, sizeof part)) > 0;) {
    text.append(part, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  siginfo_t ended{};
  while (::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) != 0 &&
         errno == EINTR) {
  }
  TempDir::child_ended();
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? text : "";
}

int measure(const EngineSetup& setup, const Options& options, const std::string& dir) {
  const LoadPlan plan = plan_of(options, dir);
  EngineConfig config = config_of(options, plan);
  Json figures = Json::parse(run_in_child(setup, config, plan), nullptr, false);
  if (!figures.is_object()) {
    return 1;
  }
  figures["engine"] = options.engine;
  if (config.use == EngineUse::kHotSet && options.engine != "ideal") {
    config.fresh = false;
    auto engine = tools::until_free([&] { return setup.open(config); });
    if (!engine) {
      return fail(engine.error());
    }
    figures["reopen_ms"] = (*engine)->open_seconds() * 1e3;
    (void)(*engine)->close();
  }
  if (options.json) {
    std::printf("%s\n", figures.dump().c_str());
    return 0;
  }
  for (const auto& [name, value] : figures.items()) {
    std::printf("%-18s %s\n", name.c_str(), value.dump().c_str());
  }
  return 0;
}

int run_in_directory(const EngineSetup& setup, const Options& options) {
  const auto dir = TempDir::create(options.dir);
  return dir ? measure(setup, options, (*dir)->path()) : fail(dir.error());
}

int dispatch(const Options& options) {
  for (const EngineSetup& setup : engine_setups()) {
    if (options.engine == setup.name && setup.open == nullptr) {
      std::fprintf(stderr, "journal_driver: %s is not in this build (%s)\n", setup.name,
                   setup.package);
      return kNotBuilt;
    }
    if (options.engine == setup.name) {
      return run_in_directory(setup, options);
    }
  }
  return 2;
}

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) {
  using namespace keel::bench;
  Options options;
  std::vector<std::string> engines;
  for (const EngineSetup& setup : engine_setups()) {
    engines.emplace_back(setup.name);
  }
  CLI::App app{"Runs one journal workload on one engine and prints its figures"};
  app.add_option("--engine", options.engine)->required()->check(CLI::IsMember(engines));
  app.add_option("--workload", options.workload)
      ->required()
      ->check(CLI::IsMember({"w1", "w2", "w3", "w4", "w4b"}));
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256));
  app.add_option("--bytes", options.object_bytes, "of an object")->check(CLI::Range(8, 1 << 20));
  app.add_option("--seconds", options.seconds, "of w1 to w3")->check(CLI::Range(0.01, 3600.0));
  app.add_option("--updates", options.updates, "of w4 and w4b");
  app.add_option("--log-mib", options.log_mib, "of keel's log and the ideal one")
      ->check(CLI::Range(1, 1 << 16));
  app.add_option("--dir", options.dir, "on the file system to be measured")->type_name("DIR");
  app.add_flag("--json", options.json);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return dispatch(options);
}
