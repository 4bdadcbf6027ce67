// What the Google Benchmark programs share: their directory, and the journal of the case that runs.
//
// The library calls a case several times to find its iteration count. Making a log each time would
// take longer than the case, so the rig is kept until a case asks for another shape.
#pragma once

#include <benchmark/benchmark.h>

#include <string>

#include "support/journal_rig.h"

namespace keel::bench {

// KEEL_BENCH_DIR, or a temporary directory, removed at exit. Exits with a message if there is none.
[[nodiscard]] const std::string& micro_dir();

// A rig of this shape, fresh or the one of the call before. Exits with a message if it cannot be
// made.
// Threads: one, while no case runs (a benchmark's Setup).
[[nodiscard]] JournalRig& micro_rig(const RigConfig& config);

// Ends the case with the error; true if there was one.
bool stop_on(benchmark::State& state, const Status& status);
template <class T>
bool stop_on(benchmark::State& state, const Result<T>& result) {
  return stop_on(state, result ? Status{} : Status{result.error()});
}

// BENCHMARK_MAIN() for programs that use the above: removes the directory at the end.
int micro_main(int argc, char** argv);

}  // namespace keel::bench
