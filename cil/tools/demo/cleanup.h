// What must not stay behind when the demo ends, also by Ctrl-C: the log file, the directory made
// for it, the child process.
#pragma once

#include <sys/types.h>

#include <string>

namespace keel::tools {

// The file that the log is made at, and the end of it. One at a time. A signal that ends the
// process (SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE) removes all of it first; the child also dies
// with this process.
class Scratch {
 public:
  // An empty `named`: a new directory under $TMPDIR or /var/tmp. Else that very path, which must
  // not exist. Throws Failure.
  explicit Scratch(const std::string& named);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  [[nodiscard]] const std::string& log() const { return log_; }
  // Removes the file, for the next one in its place.
  void remove_log() const;
  // Leaves the file where it is, also if a signal ends the process from here on.
  void keep();

 private:
  std::string directory_;  // empty: none made
  std::string log_;
  bool keep_ = false;
};

// The process to kill when a signal ends this one; 0: none.
void set_child(pid_t child);

}  // namespace keel::tools
