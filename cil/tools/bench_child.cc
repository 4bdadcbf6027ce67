#include "bench_child.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "interrupt.h"
#include "keel/measure/ticks.h"

namespace keel::tools {
namespace {

constexpr int kTickMs = 100;
constexpr std::uint64_t kPatienceNs = 60'000'000'000;

void write_all(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd, text.data() + done, text.size() - done);
    if (wrote <= 0 && errno != EINTR) {
      return;
    }
    done += wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
  }
}

// Not exit(): buffers and handlers are the parent's.
[[noreturn]] void be_child(const char* name, int fd, const std::function<Json()>& work) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto fail = [fd](const Failure& failure) {
    std::fprintf(stderr, "keel: %s\n", failure.line().c_str());
    write_all(fd, json_text(failure.json()["error"]));
    return failure.exit_code();
  };
  int code = kOk;
  try {
    write_all(fd, json_text(work()));
  } catch (const Failure& failure) {
    code = fail(failure);
  } catch (const std::exception& error) {
    code = fail({kWorldFailed, "", std::string(name) + ": " + error.what(), "system"});
  }
  ::_exit(code);
}

// Reads to the end of what the child says, and hurries it when there is to be an end.
class Reader {
 public:
  Reader(int fd, pid_t child) : fd_(fd), child_(child) {}

  std::string read(const std::function<void()>& tick) {
    std::string text;
    std::array<char, 4096> part{};
    for (;;) {
      tick();
      hurry();
      struct pollfd waits {
        fd_, POLLIN, 0
      };
      if (::poll(&waits, 1, kTickMs) <= 0) {
        continue;
      }
      const ssize_t got = ::read(fd_, part.data(), part.size());
      if (got > 0) {
        text.append(part.data(), static_cast<std::size_t>(got));
      } else if (got == 0 || errno != EINTR) {
        return text;
      }
    }
  }

 private:
  // A terminal's Ctrl-C has reached the child already, a kill of this process has not.
  void hurry() {
    if (!Interrupt::came()) {
      return;
    }
    const std::uint64_t now_ns = bench::monotonic_ns();
    if (asked_ns_ == 0) {
      asked_ns_ = now_ns;
      ::kill(child_, Interrupt::signal());
    } else if (now_ns - asked_ns_ > kPatienceNs) {
      ::kill(child_, SIGKILL);
    }
  }

  int fd_;
  pid_t child_;
  std::uint64_t asked_ns_ = 0;
};

// What a child said that failed; one that was killed may have said nothing, or a part of it.
Json error_of(const std::string& name, const std::string& failure, const std::string& said) {
  Json error = Json::parse(said, nullptr, false);
  return error.is_object() && error.contains("code")
             ? error
             : Json{{"code", "failed"}, {"message", name + " " + failure}};
}

std::string failure_of(int status) {
  if (WIFSIGNALED(status)) {
    return "ended by signal " + std::to_string(WTERMSIG(status));
  }
  return WEXITSTATUS(status) == 0 ? "" : "failed";
}

}  // namespace

ChildOutcome run_in_child(const char* name, const std::function<Json()>& work,
                          const std::function<void()>& tick) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) {
    throw Failure(name, system_error(errno, "pipe"));
  }
  const pid_t child = ::fork();
  if (child < 0) {
    const int error = errno;
    ::close(ends[0]);
    ::close(ends[1]);
    throw Failure(name, system_error(error, "fork"));
  }
  if (child == 0) {
    ::close(ends[0]);
    be_child(name, ends[1], work);
  }
  ::close(ends[1]);
  const std::string text = Reader(ends[0], child).read(tick);
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  ChildOutcome outcome;
  outcome.failure = failure_of(status);
  if (outcome.failure.empty()) {
    outcome.rows = Json::parse(text);
  } else {
    outcome.error = error_of(name, outcome.failure, text);
  }
  return outcome;
}

}  // namespace keel::tools
