#include "binary.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "command.h"
#include "keel/base/os.h"
#include "keel/cil/log_file.h"

namespace keel::tools::test {

namespace fs = std::filesystem;

TestDirectory::TestDirectory(const std::string& root) {
  const char* usual = std::getenv("TMPDIR");
  root_ = !root.empty() ? root : usual != nullptr ? usual : "/var/tmp";
  root_ += "/keel-test-XXXXXX";
  REQUIRE(::mkdtemp(root_.data()) != nullptr);
}

TestDirectory::~TestDirectory() {
  std::error_code error;
  fs::remove_all(root_, error);
}

std::string TestDirectory::names() const {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(root_)) {
    names.insert(entry.path().filename().string());
  }
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : " ") + name;
  }
  return text;
}

bool buffered() {
  static const bool needed = [] {
    const TestDirectory directory;
    const auto made = create_log(directory.path("probe"), {.size = kMinLogBytes});
    return !made.ok() && made.error().code == Errc::kUnsupported;
  }();
  return needed;
}

namespace {

std::string line_of(const std::string& arguments, const TestDirectory& directory, bool io) {
  return " " KEEL_BINARY " " + arguments + (io && buffered() ? " --buffered" : "") + " >" +
         directory.path("out") + " 2>" + directory.path("err") + " </dev/null";
}

Outcome outcome_of(int status, const TestDirectory& directory) {
  Outcome outcome;
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = read_file(directory.path("out"));
  outcome.err = read_file(directory.path("err"));
  return outcome;
}

std::string children_of(pid_t process) {
  const std::string id = std::to_string(process);
  return "/proc/" + id + "/task/" + id + "/children";
}

pid_t start(const std::string& line) {
  const pid_t process = ::fork();
  REQUIRE(process >= 0);
  if (process == 0) {
    const UsualSignals usual;
    (void)::execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    ::_exit(127);
  }
  return process;
}

// A stream of this process goes to a file while this lives.
class Redirection {
 public:
  Redirection(std::FILE* stream, const std::string& path) : stream_(stream) {
    std::fflush(stream_);
    before_ = ::dup(::fileno(stream_));
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE((before_ >= 0 && file >= 0));
    ::dup2(file, ::fileno(stream_));
    ::close(file);
  }
  ~Redirection() {
    std::fflush(stream_);
    ::dup2(before_, ::fileno(stream_));
    ::close(before_);
  }
  Redirection(const Redirection&) = delete;
  Redirection& operator=(const Redirection&) = delete;

 private:
  std::FILE* stream_;
  int before_ = -1;
};

}  // namespace

UsualSignals::UsualSignals() {
  for (const int signal : kSignals) {
    struct sigaction now {};
    if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN) {
      ignored_.push_back(signal);
      (void)std::signal(signal, SIG_DFL);
    }
  }
}

UsualSignals::~UsualSignals() {
  for (const int signal : ignored_) {
    (void)std::signal(signal, SIG_IGN);
  }
}

Outcome run(const std::string& arguments, const std::string& before, bool io) {
  const TestDirectory directory;
  const pid_t process = start(before + line_of(arguments, directory, io));
  int status = 0;
  while (::waitpid(process, &status, 0) < 0) {
    REQUIRE(errno == EINTR);
  }
  return outcome_of(status, directory);
}

Outcome run_watched(const std::string& arguments,
                    const std::function<void(pid_t keel, pid_t child)>& act, bool io,
                    const std::string& before) {
  const TestDirectory directory;
  const pid_t process = start(before + " exec" + line_of(arguments, directory, io));
  int status = 0;
  pid_t ended = 0;
  while ((ended = ::waitpid(process, &status, WNOHANG)) == 0) {
    std::ifstream children(children_of(process));
    for (pid_t child = 0; children >> child;) {
      act(process, child);
    }
    os().sleep_ns(1'000'000);
  }
  REQUIRE(ended == process);
  return outcome_of(status, directory);
}

bool can_watch_children() { return std::ifstream(children_of(::getpid())).good(); }

Outcome run_and_interrupt(const std::string& arguments, int signal, bool io) {
  bool sent = false;
  return run_watched(
      arguments,
      [&sent, signal](pid_t keel, pid_t) {
        if (!std::exchange(sent, true)) {
          (void)::kill(keel, signal);
        }
      },
      io);
}

Outcome run_here(std::vector<std::string> arguments) {
  const TestDirectory directory;
  arguments.insert(arguments.begin(), "keel");
  std::vector<char*> words;
  words.reserve(arguments.size());
  for (std::string& argument : arguments) {
    words.push_back(argument.data());
  }
  int code = 0;
  {
    const UsualSignals usual;
    const Redirection out(stdout, directory.path("out")), err(stderr, directory.path("err"));
    code = run_command_line(static_cast<int>(words.size()), words.data());
  }
  return {code, read_file(directory.path("out")), read_file(directory.path("err"))};
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  REQUIRE(file.flush().good());
}

void damage(const std::string& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 0x5a);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  REQUIRE(file.flush().good());
}

}  // namespace keel::tools::test
