#include "support/death.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "keel/base/check.h"

namespace keel_test {
namespace {

constexpr unsigned kChildSeconds = 1800;

[[noreturn]] void child(int errors_fd, const std::function<void()>& act) {
  // doctest catches signals to report the case; here they must end the process as they do a user's.
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTERM, SIGINT}) {
    (void)std::signal(number, SIG_DFL);
  }
  const struct rlimit no_core { 0, 0 };
  (void)::setrlimit(RLIMIT_CORE, &no_core);
  ::alarm(kChildSeconds);
  ::dup2(errors_fd, STDERR_FILENO);
  ::close(errors_fd);
  act();
  // Not exit(): the parent's buffers and handlers are not the child's to run.
  ::_exit(0);
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> part{};
  for (;;) {
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got > 0) {
      text.append(part.data(), static_cast<std::size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      return text;
    }
  }
}

}  // namespace

bool Ending::aborted_with(const char* text) const {
  return signal == SIGABRT && errors.find(text) != std::string::npos;
}

Ending run_in_child(const std::function<void()>& act) {
  std::array<int, 2> ends{};
  KEEL_CHECK(::pipe(ends.data()) == 0, "pipe");
  (void)std::fflush(nullptr);
  const pid_t pid = ::fork();
  KEEL_CHECK(pid >= 0, "fork");
  if (pid == 0) {
    ::close(ends[0]);
    child(ends[1], act);
  }
  ::close(ends[1]);
  Ending ending;
  ending.errors = read_all(ends[0]);
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    KEEL_CHECK(errno == EINTR, "waitpid", static_cast<std::uint64_t>(errno));
  }
  if (WIFSIGNALED(status)) {
    ending.signal = WTERMSIG(status);
  } else {
    ending.exit_code = WEXITSTATUS(status);
  }
  return ending;
}

}  // namespace keel_test
