#include "binary.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

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

bool has_child(pid_t process) {
  const std::string id = std::to_string(process);
  return !read_file("/proc/" + id + "/task/" + id + "/children").empty();
}

}  // namespace

Outcome run(const std::string& arguments, const std::string& before, bool io) {
  const TestDirectory directory;
  return outcome_of(std::system((before + line_of(arguments, directory, io)).c_str()), directory);
}

Outcome run_and_interrupt(const std::string& arguments, bool io) {
  const TestDirectory directory;
  const std::string line = "exec" + line_of(arguments, directory, io);
  const pid_t process = ::fork();
  REQUIRE(process >= 0);
  if (process == 0) {
    (void)std::signal(SIGINT, SIG_DFL);  // Whoever runs the tests in the background ignores it.
    (void)::execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  pid_t ended = 0;
  while (ended == 0 && !has_child(process)) {
    ended = ::waitpid(process, &status, WNOHANG);
    os().sleep_ns(10'000'000);
  }
  if (ended == 0) {
    (void)::kill(process, SIGINT);
    ended = ::waitpid(process, &status, 0);
  }
  REQUIRE(ended == process);
  return outcome_of(status, directory);
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
