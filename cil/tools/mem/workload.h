// The workloads of `keel mem bench`, and what they share.
//
// I1 Each runs in a child process of its own (bench_child.h) and on one source of buffers, so that
//    no figure depends on what ran before. What it had allocated at the end goes with the process.
// I2 The same code runs on either source, over the same indirect calls.
// I3 A workload looks at Interrupt::came() often, and then gives what it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/measure/histogram.h"
#include "keel/measure/ticks.h"
#include "output.h"

namespace keel::tools {

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;

struct BenchPlan {
  double seconds = 2;  // of each workload on each source
  unsigned threads = 2;
  std::size_t limit_bytes = 512 * kMiB;  // of the workload `limit`
};

// Where buffers come from.
struct BufferSource {
  const char* name;
  void* (*allocate)(std::size_t bytes);  // nullptr when there is none
  void (*free)(void* buffer);
};

// The process's malloc, whatever LD_PRELOAD made of it.
[[nodiscard]] const BufferSource& malloc_source();
// A pool, which lives to the end of the process; one a process. Throws Failure if there is none.
[[nodiscard]] const BufferSource& pool_source(const PoolConfig& config);

// Ends the process with a message unless there is a buffer.
void need(const void* buffer, std::size_t bytes);

// Writes the first `bytes_each` bytes of each page.
void write_pages(void* buffer, std::size_t bytes, std::size_t bytes_each);

// Page faults of the calling thread that needed no disk.
[[nodiscard]] std::uint64_t thread_faults();

// What one kind of act took, of one thread or merged from several.
struct Acts {
  bench::Histogram ticks;
  std::uint64_t faults = 0;
  double seconds = 0;  // for which acts were counted; the longest when merged

  void merge(const Acts& other);
};

// "workload", "case", "source", "operations", "seconds", "rate_per_s", "p50_ns" to "max_ns",
// "faults_per_operation"; figures that need operations are null when there were none.
[[nodiscard]] Json row_of(const char* workload, const std::string& what, const char* source,
                          const Acts& acts);

// Asked to stop (Interrupt::came()), or past the moment.
class Deadline {
 public:
  explicit Deadline(double seconds);
  [[nodiscard]] bool passed() const;

 private:
  std::uint64_t end_ns_;
};

// Each gives an array of rows.
[[nodiscard]] Json run_fifo(const BufferSource& source, const BenchPlan& plan);
[[nodiscard]] Json run_loop(const BufferSource& source, const BenchPlan& plan);
// On a pool of its own; and the copy that it is to be compared with.
[[nodiscard]] Json run_fragmented(const BenchPlan& plan);
[[nodiscard]] Json run_limit(bool pool, const BenchPlan& plan);

}  // namespace keel::tools
