// memory_driver: one workload on one backend, one line of JSON.
//
// A peer is this program's malloc backend under LD_PRELOAD; the scoreboard starts it so. --expect
// NAME makes sure that the preload took place: the loader only warns when it did not.
// Exit status: 0 if the workload ran, 1 if it could not, 2 for wrong use.

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "keel/measure/fragmented_pool.h"
#include "keel/measure/process.h"
#include "memory/workload.h"

namespace keel::bench {

void need(const void* buffer, std::size_t bytes) {
  if (buffer == nullptr) [[unlikely]] {
    std::fprintf(stderr, "memory_driver: no buffer of %zu bytes\n", bytes);
    std::exit(1);
  }
}

namespace {

using Run = void (*)(const Backend&, const WorkloadOptions&, FigureList&);

const std::map<std::string, Run>& workloads() {
  static const std::map<std::string, Run> all{{"fifo", run_fifo},
                                              {"burst", run_burst},
                                              {"loop", run_loop},
                                              {"shift", run_shift},
                                              {"limit", run_limit},
                                              {"threads", run_threads},
                                              {"fragmented", run_fragmented}};
  return all;
}

const Backend* backend_of(const std::string& name, const std::string& workload) {
  const std::size_t capacity = workload == "limit"        ? 512 * kMiB
                               : workload == "fragmented" ? kFragmentedBytes
                                                          : 1024 * kMiB;
  return name == "malloc"   ? &malloc_backend()
         : name == "static" ? &static_backend()
                            : &keel_backend(capacity);
}

// But for what JSON has no number for.
void print(const FigureList& figures) {
  const char* separator = "";
  std::printf("{");
  for (const auto& [name, value] : figures) {
    if (std::isfinite(value)) {
      std::printf("%s\"%s\": %.6g", separator, name.c_str(), value);
      separator = ", ";
    }
  }
  std::printf("}\n");
}

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) {
  using namespace keel::bench;
  std::string workload, backend = "malloc", expect;
  std::size_t reserve_mib = 0;
  WorkloadOptions options;
  CLI::App app{"Runs one memory workload and prints its figures as JSON"};
  app.add_option("workload", workload)->required()->check(CLI::IsMember(workloads()));
  app.add_option("--backend", backend)->check(CLI::IsMember({"malloc", "keel", "static"}));
  app.add_option("--expect", expect, "a shared object that must be loaded")->type_name("NAME");
  app.add_option("--idle", options.idle_s, "shift: seconds to wait at the end");
  app.add_option("--seconds", options.seconds, "fragmented: how long");
  app.add_option("--reserve", reserve_mib, "keel: MiB to populate before, as Pool::reserve() does");
  app.add_flag("--any", options.any_size, "fifo: any multiple of 4 KiB");
  app.add_flag("--smoke", options.smoke, "as little as can be");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!expect.empty() && !is_loaded(expect)) {
    std::fprintf(stderr, "memory_driver: %s is not loaded\n", expect.c_str());
    return 1;
  }
  FigureList figures;
  const Backend& chosen = *backend_of(backend, workload);
  if (backend == "keel" && reserve_mib != 0 &&
      !keel_pool().reserve(keel::Bytes(reserve_mib << 20))) {
    std::fprintf(stderr, "memory_driver: cannot reserve %zu MiB\n", reserve_mib);
    return 1;
  }
  workloads().at(workload)(chosen, options, figures);
  print(figures);
}
