#include "binary.h"

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

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

Outcome run(const std::string& arguments, const std::string& before, bool io) {
  const TestDirectory directory;
  const std::string line = before + " " KEEL_BINARY " " + arguments +
                           (io && buffered() ? " --buffered" : "") + " >" + directory.path("out") +
                           " 2>" + directory.path("err") + " </dev/null";
  const int status = std::system(line.c_str());
  Outcome outcome;
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = read_file(directory.path("out"));
  outcome.err = read_file(directory.path("err"));
  return outcome;
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
