#include "compare/syscall_tracer.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace keel::bench {
namespace {

// A mark is a getpriority() that asks for nothing there is.
constexpr std::uint64_t kMark = 0x6b65656c;
constexpr std::uint64_t kBegin = 1;
constexpr std::uint64_t kEnd = 2;
constexpr int kSyscallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD
constexpr int kNotAllowed = 76;               // exit status of the child

class Tracer {
 public:
  explicit Tracer(pid_t child) : child_(child) {}

  // To the end of the child.
  TracedRun trace() {
    for (;;) {
      int status = 0;
      const pid_t thread = ::waitpid(-1, &status, __WALL);
      if (thread < 0 && errno == EINTR) {
        continue;
      }
      if (thread < 0 || (thread == child_ && !WIFSTOPPED(status))) {
        run_.exit_status = thread > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        return run_;
      }
      if (WIFSTOPPED(status)) {
        go_on(thread, status);
      }
    }
  }

 private:
  void go_on(pid_t thread, int status) {
    int signal = WSTOPSIG(status);
    if (signal == kSyscallStop) {
      count(thread);
      signal = 0;
    } else if (status >> 16 != 0 || signal == SIGSTOP) {
      signal = 0;  // a thread was made, or is about to begin
    }
    ::ptrace(PTRACE_SYSCALL, thread, 0, signal);
  }

  void count(pid_t thread) {
    struct __ptrace_syscall_info info {};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY) {
      return;
    }
    if (info.entry.nr == SYS_getpriority && info.entry.args[0] == kMark) {
      counted_ = info.entry.args[1] == kBegin ? thread : 0;
    } else if (thread == counted_) {
      ++run_.system_calls;
    }
  }

  const pid_t child_;
  pid_t counted_ = 0;
  TracedRun run_;
};

}  // namespace

void mark_begin() { ::syscall(SYS_getpriority, kMark, kBegin); }
void mark_end() { ::syscall(SYS_getpriority, kMark, kEnd); }

Result<TracedRun> run_traced(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child < 0) {
    return system_error(errno, "fork");
  }
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) {
      ::_exit(kNotAllowed);
    }
    ::raise(SIGSTOP);
    ::_exit(work());
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFSTOPPED(status)) {
    return Error{Errc::kUnsupported, 0, "this process may not trace its child", 0};
  }
  ::ptrace(PTRACE_SETOPTIONS, child, 0,
           PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
  ::ptrace(PTRACE_SYSCALL, child, 0, 0);
  return Tracer(child).trace();
}

}  // namespace keel::bench
