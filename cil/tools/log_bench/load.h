// The workloads that journals are measured with. They know nothing of the engine under them.
//
//   W1, W2  threads commit one object each and wait until it is stable, again and again (W1 is
//           meant for 256 B, W2 for 4 KiB; the loop is the same)
//   W3      threads commit objects of new keys and do not wait; a thread forces every 100 ms, and a
//           last force is in the time
//   W4      1,000 objects, 1,000,000 updates of whole objects chosen uniformly, one thread, and one
//           force at the end
//   W4b     the same with a force every 100 ms
//
// I1 A latency is from the end of the commit before to the end of this one: one reading of the
//    clock a commit, and all that the loop does is in it.
// I2 Where a run is stopped early, its figures are of what was done by then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "keel/base/result.h"
#include "keel/measure/histogram.h"
#include "log_bench/engine.h"

namespace keel::bench {

enum class Workload : std::uint8_t { kW1, kW2, kW3, kW4, kW4b };

struct LoadPlan {
  Workload workload = Workload::kW1;
  unsigned threads = 1;
  std::size_t object_bytes = 256;
  double seconds = 1;                 // of W1 to W3
  std::uint64_t updates = 1'000'000;  // of W4 and W4b
  std::size_t objects = 1000;         // of W4 and W4b
  std::string dir;                    // whose device is looked at
  bool (*stopped)() = nullptr;        // asked before each commit: true ends the run
};

struct LoadResult {
  std::uint64_t commits = 0;
  double seconds = 0;                // from the first commit to the end of the last force
  double force_seconds = 0;          // of the last force
  std::uint64_t forces = 0;          // beside the commits' own
  std::uint64_t slowest_thread = 0;  // its commits
  std::uint64_t fastest_thread = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t log_bytes = 0;              // as the engine counts; 0: it does not
  std::optional<std::uint64_t> disk_bytes;  // by the device's counters
  double cpu_seconds = 0;
  Histogram ticks;  // of a commit
};

// "w1", "w2", "w3", "w4", "w4b".
[[nodiscard]] const char* to_string(Workload workload);
[[nodiscard]] std::optional<Workload> workload_of(const std::string& name);

// What an engine is to be opened for.
[[nodiscard]] EngineUse use_of(Workload workload);
// Objects of this size, and a log of this size, unless the user says otherwise.
[[nodiscard]] std::size_t usual_object_bytes(Workload workload);
[[nodiscard]] Bytes usual_log_bytes(Workload workload);

// Errors: the first that a call of the engine returned.
[[nodiscard]] Result<LoadResult> run_load(Engine& engine, const LoadPlan& plan);

}  // namespace keel::bench
