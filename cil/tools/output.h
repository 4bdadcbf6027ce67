// What every command says and how: exit codes, failures, JSON, progress, sizes for people.
//
// I1 Standard output carries the result only: text, or with --json exactly one JSON object, also
//    when the command fails. Errors, warnings and progress go to standard error, one line each.
// I2 A command ends by returning an exit code or by throwing Failure, which run_command_line()
//    alone catches; so destructors clean up whatever the command had made.
#pragma once

#include <cstdint>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel::tools {

// Members stay in the order in which they are set.
using Json = nlohmann::ordered_json;

// Exit codes; `keel --help` and README.md list them. By a signal: Interrupt::exit_code().
enum ExitCode : int {
  kOk = 0,
  kCheckFailed = 1,  // the command worked and found a log damaged, or a promise broken
  kUsage = 2,        // wrong flags or values
  kWorldFailed = 3,  // I/O error, no space, no permission, not found, not supported here
  kUnfit = 4,        // not a log, of another version, in use, there already, or open to others
};

[[nodiscard]] int exit_code_of(Errc code);

// Ends a command: becomes the line "keel: SUBJECT: text" and the exit code.
class Failure : public std::exception {
 public:
  // `subject` is mostly a path; empty: none. `code` is a word for JSON.
  Failure(int exit_code, std::string subject, std::string text, std::string code = "failed");
  Failure(std::string subject, const Error& error);

  [[nodiscard]] int exit_code() const { return exit_code_; }
  // The line without "keel: ", and what --json prints.
  [[nodiscard]] std::string line() const;
  [[nodiscard]] Json json() const;
  [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }

 private:
  int exit_code_;
  std::string subject_;
  std::string text_;
  std::string code_;
};

// Throws the error of a Result or Status that is not ok.
template <class ResultOrStatus>
void require(const ResultOrStatus& result, const std::string& subject) {
  if (!result) {
    throw Failure(subject, result.error());
  }
}

// Prints one object and a newline. Bytes that are not UTF-8 (in a path) are replaced.
void print_json(const Json& json);
[[nodiscard]] std::string json_text(const Json& json);

// "keel: SUBJECT: warning: text" on standard error.
void warn(const std::string& subject, const std::string& text);

// Without control characters, so that no path can break the line or the terminal.
[[nodiscard]] std::string printable(std::string_view text);

// "640 B", "64.0 KiB", "1.5 GiB".
[[nodiscard]] std::string human(Bytes bytes);
// "12,345,678"
[[nodiscard]] std::string grouped(std::uint64_t value);
// "2026-01-31 23:59:59 UTC"
[[nodiscard]] std::string utc(std::uint64_t realtime_ns);

// One line on standard error that is written over and over, if that is a terminal; gone when it
// ends.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Shows the text now and then: most calls return at once.
  void show(const std::string& text);
  void show(const char* act, Bytes done, Bytes most);
  // Takes the line away, before something else is printed to the terminal.
  void clear();

 private:
  [[nodiscard]] bool due();
  void print(const std::string& text);

  bool terminal_;
  bool shown_ = false;
  std::uint64_t last_ns_ = 0;
};

}  // namespace keel::tools
