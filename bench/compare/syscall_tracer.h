// Counts the system calls that one thread of a child makes between two marks, by ptrace: works
// without privileges, on any kernel, and slows every system call of the child down.
#pragma once

#include <cstdint>
#include <functional>

#include "keel/base/result.h"

namespace keel::bench {

// For the child: the calling thread is counted from the first to the second.
void mark_begin();
void mark_end();

struct TracedRun {
  std::uint64_t system_calls = 0;  // between the marks
  int exit_status = 0;             // of the child
};

// Runs `work` in a child that is traced; its value is the exit status. The caller has one thread.
// Errors: kUnsupported where tracing is not allowed; kSystem.
[[nodiscard]] Result<TracedRun> run_traced(const std::function<int()>& work);

}  // namespace keel::bench
