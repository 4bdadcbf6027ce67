// What the driver's workloads share: how they were asked for, what they report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "keel/base/units.h"
#include "memory/backend.h"
#include "support/clock.h"

namespace keel::bench {

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;

struct WorkloadOptions {
  bool smoke = false;     // as little as can be
  bool any_size = false;  // fifo: any multiple of 4 KiB, not powers of two alone
  double idle_s = 12;     // shift: how long to wait after all is freed
  double seconds = 2;     // fragmented: how long to run
};

// Names and values, in the order in which they were found.
using FigureList = std::vector<std::pair<std::string, double>>;

// Sizes of the fifo workloads: uniform over {4 KiB, 8 KiB, ... 1 MiB}, or over all multiples.
class FifoSizes {
 public:
  FifoSizes(bool any, std::uint64_t seed) : any_(any), random_(seed) {}
  std::size_t next() {
    const std::uint64_t random = next_random(random_) >> 20;
    return any_ ? (random % 256 + 1) * kPageBytes : kPageBytes << random % 9;
  }

 private:
  const bool any_;
  std::uint64_t random_;
};

// Writes the first 64 bytes of each page.
inline void fill(void* buffer, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += kPageBytes) {
    __builtin_memset(static_cast<std::byte*>(buffer) + at, 0x5a, 64);
  }
  clobber_memory();
}

// Ends the process with a message unless there is a buffer.
void need(const void* buffer, std::size_t bytes);

// Each runs on the calling thread and threads of its own, and adds its figures.
void run_fifo(const Backend& backend, const WorkloadOptions& options, FigureList& figures);
void run_burst(const Backend& backend, const WorkloadOptions& options, FigureList& figures);
void run_loop(const Backend& backend, const WorkloadOptions& options, FigureList& figures);
void run_shift(const Backend& backend, const WorkloadOptions& options, FigureList& figures);
void run_limit(const Backend& backend, const WorkloadOptions& options, FigureList& figures);
void run_threads(const Backend& backend, const WorkloadOptions& options, FigureList& figures);
void run_fragmented(const Backend& backend, const WorkloadOptions& options, FigureList& figures);

}  // namespace keel::bench
