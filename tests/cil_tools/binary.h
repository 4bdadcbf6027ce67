// Runs the binary `keel` as a shell user would.
#pragma once

#include <doctest/doctest.h>
#include <sys/types.h>

#include <csignal>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace keel::tools::test {

struct Outcome {
  int code = -1;  // exit code; 128 + n if signal n ended it
  std::string out;
  std::string err;

  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(out); }
  // Standard error is exactly this line.
  [[nodiscard]] bool says(const std::string& line) const { return err == "keel: " + line + "\n"; }
};

// A directory of its own, gone with the object.
class TestDirectory {
 public:
  // Under $TMPDIR or /var/tmp, or under `root`.
  explicit TestDirectory(const std::string& root = "");
  ~TestDirectory();
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;

  [[nodiscard]] std::string path(const std::string& name) const { return root_ + "/" + name; }
  [[nodiscard]] const std::string& root() const { return root_; }
  // Names in it, sorted, blank between.
  [[nodiscard]] std::string names() const;

 private:
  std::string root_;
};

// Where direct I/O is missing, all tests go through the page cache.
[[nodiscard]] bool buffered();

// While this lives a signal that ends commands does so: whoever runs the tests in the background
// (nohup, a job of a script) has them started with some ignored, and what is ignored at its start
// the tool leaves ignored. All that is run by the functions below is started like this.
class UsualSignals {
 public:
  UsualSignals();
  ~UsualSignals();
  UsualSignals(const UsualSignals&) = delete;
  UsualSignals& operator=(const UsualSignals&) = delete;

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT};
  std::vector<int> ignored_;
};

// Runs `keel arguments`, a shell line; `before` is put in front of it ("TMPDIR=x").
// `io`: --buffered where that is needed.
[[nodiscard]] Outcome run(const std::string& arguments, const std::string& before = "",
                          bool io = true);

// The same of a command that does its work in children: `act` is called again and again while it
// has one. Only where can_watch_children().
[[nodiscard]] Outcome run_watched(const std::string& arguments,
                                  const std::function<void(pid_t keel, pid_t child)>& act,
                                  bool io = true, const std::string& before = "");
[[nodiscard]] bool can_watch_children();
// Of these one that gets `signal` when it has its first child.
[[nodiscard]] Outcome run_and_interrupt(const std::string& arguments, int signal = SIGINT,
                                        bool io = true);

// Runs exactly these arguments in this process, which may have an Os of its own.
[[nodiscard]] Outcome run_here(std::vector<std::string> arguments);

[[nodiscard]] std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);
// Flips the byte at `offset`.
void damage(const std::string& path, std::uint64_t offset);

}  // namespace keel::tools::test
