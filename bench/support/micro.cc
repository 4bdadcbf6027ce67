#include "support/micro.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "support/temp_dir.h"

namespace keel::bench {
namespace {

std::unique_ptr<TempDir> g_dir;
std::unique_ptr<JournalRig> g_rig;
std::optional<RigConfig> g_rig_config;

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "bench: %s\n", error.message().c_str());
  g_dir.reset();
  std::_Exit(1);
}

}  // namespace

const std::string& micro_dir() {
  if (g_dir == nullptr) {
    const char* wished = std::getenv("KEEL_BENCH_DIR");
    auto made = TempDir::create(wished != nullptr ? wished : "");
    if (!made) {
      give_up(made.error());
    }
    g_dir = std::move(*made);
  }
  return g_dir->path();
}

JournalRig& micro_rig(const RigConfig& config) {
  if (g_rig == nullptr || g_rig_config != config) {
    g_rig.reset();
    auto made = JournalRig::create(micro_dir(), "bench.log", config);
    if (!made) {
      give_up(made.error());
    }
    g_rig = std::move(*made);
    g_rig_config = config;
  }
  return *g_rig;
}

bool stop_on(benchmark::State& state, const Status& status) {
  if (!status.ok()) {
    state.SkipWithError(status.error().message().c_str());
  }
  return !status.ok();
}

int micro_main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 2;
  }
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  g_rig.reset();
  g_dir.reset();
  return ran > 0 ? 0 : 1;
}

}  // namespace keel::bench
