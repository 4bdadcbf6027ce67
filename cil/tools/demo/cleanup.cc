#include "demo/cleanup.h"

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "output.h"

namespace keel::tools {
namespace {

// Read by the signal handler: set before `g_armed`, whose release it pairs with.
std::array<char, PATH_MAX> g_log{};
std::array<char, PATH_MAX> g_directory{};
std::atomic<bool> g_armed{false};
std::atomic<pid_t> g_child{0};

// Async-signal-safe calls only.
void clean_up_and_die(int signal) {
  const int error = errno;  // what it interrupted goes on until the raised signal arrives
  if (const pid_t child = g_child.load(std::memory_order_relaxed); child > 0) {
    ::kill(child, SIGKILL);
  }
  if (g_armed.load(std::memory_order_acquire)) {
    ::unlink(g_log.data());
    if (g_directory[0] != '\0') {
      ::rmdir(g_directory.data());
    }
  }
  // Delivered when this handler returns: the parent sees that a signal ended the process.
  ::signal(signal, SIG_DFL);
  ::raise(signal);
  errno = error;
}

constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};

// While this lives they wait: what stands there and what the handler knows of it are changed
// together.
class SignalsWait {
 public:
  SignalsWait() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : kSignals) {
      sigaddset(&set, signal);
    }
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~SignalsWait() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsWait(const SignalsWait&) = delete;
  SignalsWait& operator=(const SignalsWait&) = delete;

 private:
  sigset_t before_;
};

void handle_signals() {
  struct sigaction action {};
  action.sa_handler = clean_up_and_die;
  sigfillset(&action.sa_mask);
  for (const int signal : kSignals) {
    struct sigaction before {};
    ::sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) {  // nohup
      ::sigaction(signal, &action, nullptr);
    }
  }
}

void arm(const std::string& directory, const std::string& log) {
  if (log.size() >= g_log.size()) {
    if (!directory.empty()) {
      ::rmdir(directory.c_str());
    }
    throw Failure(log, system_error(ENAMETOOLONG, "the log's path"));
  }
  // With the final 0; the directory is the shorter one.
  std::memcpy(g_log.data(), log.c_str(), log.size() + 1);
  std::memcpy(g_directory.data(), directory.c_str(), directory.size() + 1);
  g_armed.store(true, std::memory_order_release);
  handle_signals();
}

std::string new_directory() {
  const char* root = ::getenv("TMPDIR");
  std::string path = root != nullptr && root[0] != '\0' ? root : "/var/tmp";
  const std::string under = path;
  path += "/keel-demo-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    throw Failure(under, system_error(errno, "make a directory for the log"));
  }
  return path;
}

}  // namespace

Scratch::Scratch(const std::string& named) {
  const SignalsWait wait;
  if (named.empty()) {
    directory_ = new_directory();
    log_ = directory_ + "/log";
  } else {
    struct stat found {};
    if (::lstat(named.c_str(), &found) == 0) {
      throw Failure(named, {Errc::kExists, 0, "the demo makes its log anew", 0});
    }
    log_ = named;
  }
  arm(directory_, log_);
}

Scratch::~Scratch() {
  const SignalsWait wait;
  g_armed.store(false, std::memory_order_release);
  if (keep_) {
    return;
  }
  remove_log();
  if (!directory_.empty()) {
    ::rmdir(directory_.c_str());
  }
}

void Scratch::remove_log() const { ::unlink(log_.c_str()); }

void Scratch::keep() {
  g_armed.store(false, std::memory_order_release);
  keep_ = true;
}

void set_child(pid_t child) { g_child.store(child, std::memory_order_relaxed); }

}  // namespace keel::tools
