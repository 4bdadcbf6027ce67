#include "support/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "keel/measure/ticks.h"

namespace keel::bench {
namespace {

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> environment_of(const Command& command) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::strncmp(*entry, "LD_PRELOAD=", 11) != 0) {
      all.emplace_back(*entry);
    }
  }
  all.insert(all.end(), command.environment.begin(), command.environment.end());
  return all;
}

// What posix_spawn needs to be told: stdout into the pipe, and no blocked signals (TempDir blocks
// some here).
class SpawnSettings {
 public:
  SpawnSettings(int out, const std::string& directory) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_adddup2(&actions_, out, STDOUT_FILENO);
    if (!directory.empty()) {
      posix_spawn_file_actions_addchdir_np(&actions_, directory.c_str());
    }
    posix_spawnattr_init(&attributes_);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

// False if the time is over first.
bool read_all(int fd, double timeout_s, std::string& text) {
  const std::uint64_t end_ns = monotonic_ns() + static_cast<std::uint64_t>(timeout_s * 1e9);
  for (char part[4096];;) {
    const std::uint64_t now_ns = monotonic_ns();
    if (now_ns >= end_ns) {
      return false;
    }
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>((end_ns - now_ns) / 1'000'000 + 1)) <= 0) {
      continue;
    }
    const ssize_t bytes = ::read(fd, part, sizeof part);
    if (bytes == 0) {
      return true;
    }
    if (bytes > 0) {
      text.append(part, static_cast<std::size_t>(bytes));
    }
  }
}

Status wait_for(pid_t child, bool in_time) {
  if (!in_time) {
    ::kill(child, SIGKILL);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) {
    return Error{Errc::kSystem, ETIMEDOUT, "a program took too long", 0};
  }
  if (WIFSIGNALED(status)) {
    return Error{Errc::kSystem, 0, "a program was ended by a signal",
                 static_cast<std::uint64_t>(WTERMSIG(status))};
  }
  return WEXITSTATUS(status) == 0 ? Status{}
                                  : Error{Errc::kSystem, 0, "a program failed",
                                          static_cast<std::uint64_t>(WEXITSTATUS(status))};
}

}  // namespace

Result<std::string> run_child(const Command& command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return system_error(errno, "make a pipe");
  }
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = environment_of(command);
  pid_t child = 0;
  int failed = 0;
  {
    const SpawnSettings settings(ends[1], command.directory);
    failed = posix_spawnp(&child, arguments[0].c_str(), &settings.actions_, &settings.attributes_,
                          pointers_to(arguments).data(), pointers_to(environment).data());
  }
  ::close(ends[1]);
  std::string text;
  Status status;
  if (failed != 0) {
    status = system_error(failed, "start a program");
  } else {
    status = wait_for(child, read_all(ends[0], command.timeout_s, text));
  }
  ::close(ends[0]);
  return status.ok() ? Result<std::string>(std::move(text)) : Result<std::string>(status.error());
}

std::string find_library(const std::string& name) {
  std::error_code ignored;
  for (const char* base : {"/usr/lib", "/lib"}) {
    for (const auto& entry : std::filesystem::directory_iterator(base, ignored)) {
      const std::string folder = entry.path().filename();
      if (folder.ends_with("-linux-gnu") && std::filesystem::exists(entry.path() / name, ignored)) {
        return entry.path() / name;
      }
    }
    if (std::filesystem::exists(std::filesystem::path(base) / name, ignored)) {
      return std::filesystem::path(base) / name;
    }
  }
  return "";
}

std::string sibling_program(const std::string& name) {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / name;
}

}  // namespace keel::bench
