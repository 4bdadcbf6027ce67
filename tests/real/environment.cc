#include "environment.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "keel/base/check.h"

namespace keel_test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kShutdownLogFlush = 1;  // XFS_FSOP_GOING_FLAGS_LOGFLUSH
constexpr std::uint32_t kShutdownNoLogFlush = 2;

int reaper_pipe = -1;

// Called in a child: only what is safe after a fork.
[[noreturn]] void become(const std::vector<std::string>& words, int control) {
  std::vector<char*> list;
  for (const std::string& word : words) {
    list.push_back(const_cast<char*>(word.c_str()));  // NOLINT: execv takes it so
  }
  list.push_back(nullptr);
  if (control >= 0 && control != 3) {
    (void)::dup2(control, 3);
  } else if (control == 3) {
    (void)::fcntl(3, F_SETFD, 0);
  }
  (void)::execvp(list[0], list.data());
  ::_exit(127);
}

void start_reaper() {
  int ends[2];
  KEEL_CHECK(::pipe2(ends, O_CLOEXEC) == 0, "a pipe for the reaper");
  const std::string helper = helper_path();
  const pid_t pid = ::fork();
  KEEL_CHECK(pid >= 0, "fork the reaper");
  if (pid == 0) {
    (void)::setsid();  // out of reach of Ctrl-C
    (void)::dup2(ends[0], 0);
    const int nothing = ::open("/dev/null", O_RDWR);
    (void)::dup2(nothing, 1);  // whoever reads our output must not wait for the reaper
    (void)::dup2(nothing, 2);
    become({helper, "reap"}, -1);
  }
  (void)::close(ends[0]);
  reaper_pipe = ends[1];
}

void tell_reaper(const std::string& line) {
  if (reaper_pipe >= 0) {
    const std::string text = line + "\n";
    (void)!::write(reaper_pipe, text.data(), text.size());
  }
}

std::vector<std::string> words_of(const std::vector<std::string>& before,
                                  const std::vector<std::string>& arguments) {
  std::vector<std::string> words = before;
  words.push_back(helper_path());
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

}  // namespace

void prepare_environment() {
  static bool done = false;
  if (done) {
    return;
  }
  done = true;
  if (is_root() && ::unshare(CLONE_NEWNS) == 0) {
    (void)::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  }
  start_reaper();
}

std::string helper_path() {
  return fs::read_symlink("/proc/self/exe").parent_path() / "keel_real_helper";
}

bool is_root() { return ::geteuid() == 0; }

bool have_program(const std::string& name) {
  const char* set = std::getenv("PATH");
  std::string path = set != nullptr ? set : "";
  path += ":/usr/sbin:/sbin";
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    if (::access((path.substr(at, end - at) + "/" + name).c_str(), X_OK) == 0) {
      return true;
    }
    at = end + 1;
  }
  return false;
}

int run_command(const std::string& line) {
  const std::string all =
      "PATH=$PATH:/usr/sbin:/sbin; { " + line + "; } </dev/null >/dev/null 2>&1";
  const int status = std::system(all.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void reap_later(const std::string& kind, const std::string& what) {
  tell_reaper("+ " + kind + " " + what);
}
void reap_no_more(const std::string& kind, const std::string& what) {
  tell_reaper("- " + kind + " " + what);
}

std::string why_no_direct_io(const std::string& directory) {
  std::string path = directory + "/keel-direct-XXXXXX";
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) {
    return "no file in " + directory + ": " + std::strerror(errno);
  }
  (void)::unlink(path.c_str());
  const bool has_it = ::fcntl(fd, F_SETFL, O_DIRECT) == 0;
  (void)::close(fd);
  return has_it ? "" : "no direct I/O in " + directory;
}

std::string memory_root(std::uint64_t bytes) {
  constexpr std::uint64_t kBeside = std::uint64_t{8} << 20U;
  constexpr const char* kMemory = "/dev/shm";
  struct statvfs st {};
  const bool fits = ::statvfs(kMemory, &st) == 0 && ::access(kMemory, W_OK) == 0 &&
                    st.f_bavail * st.f_frsize >= bytes + kBeside &&
                    why_no_direct_io(kMemory).empty();
  return fits ? kMemory : "";
}

Scratch::Scratch(const std::string& root) {
  prepare_environment();
  const char* set = std::getenv("KEEL_REAL_DIR");
  directory_.emplace((!root.empty() ? root : set != nullptr ? set : "/var/tmp") + "/keel-real");
  reap_later("dir", path());
}

Scratch::~Scratch() {
  const std::string gone = path();
  directory_.reset();
  reap_no_more("dir", gone);
}

Child::Child(const std::vector<std::string>& words, int control, bool dies_with_us,
             const std::string& output) {
  prepare_environment();
  const pid_t parent = ::getpid();
  const bool quiet = std::getenv("KEEL_REAL_VERBOSE") == nullptr;
  (void)std::fflush(stdout);
  pid_ = ::fork();
  KEEL_CHECK(pid_ >= 0, "fork a child");
  if (pid_ == 0) {
    if (dies_with_us) {
      (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) {
        ::_exit(127);
      }
    }
    if (!output.empty()) {
      const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
      (void)::dup2(fd, 1);
      (void)::dup2(fd, 2);
    } else if (quiet) {
      (void)::dup2(::open("/dev/null", O_RDWR), 2);
    }
    become(words, control);
  }
}

Child::~Child() {
  if (pid_ > 0) {
    signal(SIGCONT);
    signal(SIGKILL);
    (void)wait();
  }
}

int Child::wait() {
  if (pid_ > 0) {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return code_;
}

int Child::poll() {
  int status = 0;
  if (pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = -1;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return pid_ > 0 ? -1 : code_;
}

void Child::signal(int number) {
  if (pid_ > 0) {
    (void)::kill(pid_, number);
  }
}

Helper::Helper(const std::vector<std::string>& arguments, int control, bool dies_with_us,
               const std::vector<std::string>& before)
    : Child(words_of(before, arguments), control, dies_with_us) {}

std::unique_ptr<Mounted> Mounted::mount(const std::string& device, const std::string& directory,
                                        const std::string& type, const std::string& options,
                                        std::string& why) {
  prepare_environment();
  (void)::mkdir(directory.c_str(), 0700);
  if (::mount(device.c_str(), directory.c_str(), type.c_str(), MS_NOATIME, options.c_str()) != 0) {
    why = "no mount of " + type + ": " + std::strerror(errno);
    return nullptr;
  }
  std::unique_ptr<Mounted> mounted(new Mounted);
  mounted->directory_ = directory;
  mounted->mounted_ = true;
  return mounted;
}

Mounted::~Mounted() {
  if (mounted_ && !unmount()) {
    (void)::umount2(directory_.c_str(), MNT_DETACH);
  }
}

bool Mounted::unmount() {
  mounted_ = ::umount2(directory_.c_str(), 0) != 0;
  return !mounted_;
}

bool Mounted::shut_down(bool flush_log) {
  const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::uint32_t flags = flush_log ? kShutdownLogFlush : kShutdownNoLogFlush;
  const bool done = fd >= 0 && ::ioctl(fd, _IOR('X', 125, std::uint32_t), &flags) == 0;
  (void)::close(fd);
  return done;
}

bool Mounted::sync() {
  const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = fd >= 0 && ::syncfs(fd) == 0;
  (void)::close(fd);
  return done;
}

bool Mounted::freeze() {
  const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = fd >= 0 && ::ioctl(fd, FIFREEZE, 0) == 0;
  (void)::close(fd);
  return done;
}

bool Mounted::thaw() {
  const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = fd >= 0 && ::ioctl(fd, FITHAW, 0) == 0;
  (void)::close(fd);
  return done;
}

bool make_file_system(const std::string& type, const std::string& path, std::string& why,
                      const std::string& extra) {
  const std::string program = "mkfs." + type;
  if (!have_program(program)) {
    why = "no " + program;
    return false;
  }
  // Without discarding first, which a file in memory gains nothing from, and with nothing left to
  // be initialized behind the back of a test that counts writes.
  const std::string usual =
      type == "xfs" ? " -q -f -K " : " -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 ";
  if (run_command(program + usual + extra + " " + path) != 0) {
    why = program + " failed";
    return false;
  }
  return true;
}

void make_sparse(const std::string& path, std::uint64_t bytes) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  KEEL_CHECK(fd >= 0 && ::ftruncate(fd, static_cast<off_t>(bytes)) == 0, "make a file");
  (void)::close(fd);
}

bool make_whole(const std::string& path, std::uint64_t bytes, std::string& why) {
  make_sparse(path, bytes);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  const bool whole = ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0;
  const int error = whole ? 0 : errno;
  (void)::close(fd);
  if (whole || error == EOPNOTSUPP) {
    return true;
  }
  why = "no room for a disk of a test: " + std::string(std::strerror(error));
  (void)::unlink(path.c_str());
  return false;
}

std::uint64_t least_bytes(const std::string& type) {
  return std::uint64_t{type == "xfs" ? 320U : 40U} << 20U;
}

}  // namespace keel_test
