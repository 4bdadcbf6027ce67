// scoreboard: ours against peers and limits, side by side in one run, one line a row.
//
// Exit status: 0 if every row ran, met or not; 1 if one could not be measured; 2 for wrong use.

#include <fnmatch.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "scoreboard/report.h"
#include "scoreboard/row.h"
#include "scoreboard/run.h"
#include "support/temp_dir.h"

namespace keel::bench {
namespace {

struct Options {
  std::string json;
  std::string only;
  std::string dir;
  int pairs = 0;  // 0: each row's own
  bool full = false;
  bool smoke = false;
  bool list = false;
};

// A part of the name, or a glob over all of it.
bool matches(const RowDefinition& row, const std::string& pattern) {
  return pattern.empty() || std::string(row.name).find(pattern) != std::string::npos ||
         fnmatch(pattern.c_str(), row.name, 0) == 0;
}

std::vector<RowDefinition> select(const std::string& pattern) {
  std::vector<RowDefinition> rows = all_rows();
  std::erase_if(rows, [&](const RowDefinition& row) { return !matches(row, pattern); });
  return rows;
}

int fail(const std::string& text) {
  std::fprintf(stderr, "scoreboard: %s\n", text.c_str());
  return 2;
}

// Asked before the run: minutes of measuring must not end in a file that cannot be written.
bool can_be_written(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path();
  return std::filesystem::exists(path)
             ? !std::filesystem::is_directory(path) && access(path.c_str(), W_OK) == 0
             : access(parent.empty() ? "." : parent.c_str(), W_OK) == 0;
}

int run(const Options& options) {
  const std::vector<RowDefinition> rows = select(options.only);
  if (rows.empty()) {
    return fail("no row matches '" + options.only + "'; --list shows them");
  }
  if (options.list) {
    print_rows(rows);
    return 0;
  }
  if (!options.json.empty() && !can_be_written(options.json)) {
    return fail("cannot write " + options.json);
  }
  auto dir = TempDir::create(options.dir);
  if (!dir) {
    return fail(dir.error().message() +
                (options.dir.empty() ? " (--dir DIR)" : ": " + options.dir));
  }
  Run run({(*dir)->path(), options.full, options.smoke, options.pairs});
  const bool ok = run.all(rows);
  if (!options.json.empty()) {
    if (auto status = write_json(options.json, run.outcomes(), options.smoke); !status) {
      std::fprintf(stderr, "scoreboard: %s\n", status.error().message().c_str());
      return 1;
    }
  }
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) {
  keel::bench::Options options;
  CLI::App app{"Compares keel with peers and limits, interleaved in one run"};
  app.add_option("--only", options.only,
                 "rows whose name has PATTERN in it or matches it as a glob")
      ->type_name("PATTERN");
  app.add_option("--json", options.json, "write the rows there as well")->type_name("FILE");
  app.add_option("--dir", options.dir,
                 "file system to measure (default: a temporary directory on a real one)")
      ->type_name("DIR");
  app.add_option("--pairs", options.pairs,
                 "pairs of each row, 1 to 1000 (default: 5; 1 to 3 against many peers)")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--full", options.full, "every peer of a row, not only the best");
  app.add_flag("--smoke", options.smoke,
               "as little as can be; proves that the rows run, and prints those that do not");
  app.add_flag("--list", options.list, "list the rows");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.smoke) {
    options.pairs = 1;
  }
  return keel::bench::run(options);
}
