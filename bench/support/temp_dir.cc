#include "support/temp_dir.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace keel::bench {
namespace {

bool lives_in_memory(const std::string& path) {
  struct statfs found {};
  if (statfs(path.c_str(), &found) != 0) {
    return true;
  }
  const auto type = static_cast<unsigned long>(found.f_type);
  return type == TMPFS_MAGIC || type == RAMFS_MAGIC;
}

bool has_direct_io(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_TMPFILE | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) {
    // A file system without unnamed files may still have direct I/O; the log's creation will tell.
    return errno == EOPNOTSUPP || errno == EISDIR;
  }
  ::close(fd);
  return true;
}

// Empty if there is none.
std::string find_base() {
  const char* wished = std::getenv("TMPDIR");
  const std::array<std::string, 4> places{wished != nullptr ? wished : "", "/var/tmp", ".", "/tmp"};
  for (const std::string& place : places) {
    if (!place.empty() && !lives_in_memory(place) && has_direct_io(place)) {
      return place;
    }
  }
  return "";
}

// Held while the directory is removed. A signal's thread never gives it back: who would fork or
// remove it too waits for the process's end.
std::mutex g_removal;
pid_t g_child = 0;  // guarded by it

// Returns when it is dead: what it had under way is no more, and it makes no new files. Whoever
// waits for it is left to take its status.
void kill_child() {
  if (g_child > 0) {
    ::kill(g_child, SIGKILL);
    siginfo_t ended{};
    while (::waitid(P_PID, static_cast<id_t>(g_child), &ended, WEXITED | WNOWAIT) != 0 &&
           errno == EINTR) {
    }
  }
}

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaddset(&set, signal);
  }
  return set;
}

// A thread and not a handler: removing files is nothing that a handler may do. The signals are
// blocked.
void remove_at_signal(const std::string& path) {
  std::thread([set = ending_signals(), path] {
    int signal = 0;
    if (sigwait(&set, &signal) == 0) {
      const std::lock_guard lock(g_removal);
      kill_child();
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
      _exit(128 + signal);
    }
  }).detach();
}

}  // namespace

Result<std::unique_ptr<TempDir>> TempDir::create(const std::string& base) {
  const std::string place = base.empty() ? find_base() : base;
  if (place.empty()) {
    return Error{Errc::kNotFound, 0, "no place for files on a real file system; name one", 0};
  }
  std::string path = place + "/keel-bench-XXXXXX";
  // Before: one that comes when the directory is there must not leave it behind.
  const sigset_t set = ending_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  if (mkdtemp(path.data()) == nullptr) {
    const int error = errno;
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    return system_error(error, "make a directory for the benchmark's files");
  }
  remove_at_signal(path);
  return std::unique_ptr<TempDir>(new TempDir(std::move(path)));
}

pid_t TempDir::fork_child() {
  const std::lock_guard lock(g_removal);
  const pid_t child = ::fork();
  g_child = child > 0 ? child : 0;
  return child;
}

void TempDir::child_ended() {
  const std::lock_guard lock(g_removal);
  g_child = 0;
}

TempDir::~TempDir() {
  const std::lock_guard lock(g_removal);
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace keel::bench
