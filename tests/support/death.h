// Runs code in a child process and tells how it ended: for tests of aborts.
#pragma once

#include <functional>
#include <string>

namespace keel_test {

struct Ending {
  int exit_code = -1;  // -1 if a signal ended it
  int signal = 0;      // 0 if it exited
  std::string errors;  // what it wrote to stderr

  [[nodiscard]] bool aborted_with(const char* text) const;
};

// Forks, runs `act` in the child and waits for its end. The child exits with 0 when `act` returns,
// is ended by SIGALRM after a minute, and leaves no core file. A CHECK in the child does not reach
// the parent: say what there is to say by stderr and _exit(). Call it while no other thread runs
// that may hold a lock.
[[nodiscard]] Ending run_in_child(const std::function<void()>& act);

}  // namespace keel_test
