// Interrupt: SIGINT, SIGTERM, SIGHUP and SIGPIPE (nobody reads what is printed) are noted instead
// of ending the process, so that a command can stop at a safe place and take back what it began.
#pragma once

#include <csignal>
#include <cstddef>

namespace keel::tools {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // The signal that came first, 0 if none. Threads: any.
  [[nodiscard]] static int signal();
  [[nodiscard]] static bool came() { return signal() != 0; }
  // As a shell has it: 128 + signal.
  [[nodiscard]] static int exit_code() { return 128 + signal(); }
  // Throws Failure with that exit code if one came; `left` says what is left then.
  static void check(const char* left = "nothing was left behind");

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
  static constexpr std::size_t kCount = sizeof kSignals / sizeof kSignals[0];
  struct sigaction before_[kCount];
};

}  // namespace keel::tools
