// Runs the binary `keel` as a shell user would.
#pragma once

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

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

// Runs `keel arguments`, a shell line; `before` is put in front of it ("TMPDIR=x").
// `io`: --buffered where that is needed.
[[nodiscard]] Outcome run(const std::string& arguments, const std::string& before = "",
                          bool io = true);

// The same of a command that does its work in a child, and gets SIGINT when it has one.
[[nodiscard]] Outcome run_and_interrupt(const std::string& arguments, bool io = true);

[[nodiscard]] std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);
// Flips the byte at `offset`.
void damage(const std::string& path, std::uint64_t offset);

}  // namespace keel::tools::test
