// keel: the one binary.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "command.h"
#include "output.h"

namespace keel::tools {
namespace {

// A standard descriptor that the caller closed would be given to a log or to the pool's memory, and
// output would go there. Taken by what cannot be written to, so that output fails.
void occupy_standard_descriptors() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) {
    fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  }
  if (fd > STDERR_FILENO) {
    ::close(fd);
  }
}

}  // namespace
}  // namespace keel::tools

int main(int argc, char** argv) {
  keel::tools::occupy_standard_descriptors();
  // A file size limit is a full disk like any other: an error to report, not a death.
  std::signal(SIGXFSZ, SIG_IGN);
  const int code = keel::tools::run_command_line(argc, argv);
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fputs("keel: cannot write to standard output\n", stderr);
    return code == keel::tools::kOk ? keel::tools::kWorldFailed : code;
  }
  return code;
}
