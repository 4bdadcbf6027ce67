// keel log info: what a log says of itself, and how it ends. Reads only.
//
// The superblock and the state slots say where the log was known to be stable when they were last
// written; how it ends only its checkpoints tell, so they are read as verify reads them.

#include <cstdio>

#include "command.h"
#include "keel/cil/log_file.h"
#include "log_text.h"
#include "output.h"

namespace keel::tools {
namespace {

struct Options {
  std::string path;
  ScanOptions scan;
};

int run(const Context& context, const Options& options) {
  const auto info = read_log_info(options.path, options.scan.buffered);
  require(info, options.path);
  const auto report = scan_whole(options.path, options.scan);
  require(report, options.path);
  const bool sound = report->end != LogEnd::kDamaged;
  const Json warnings = warn_of(options.path, *info);
  if (context.json) {
    print_json({{"ok", sound},
                {"path", options.path},
                {"log", to_json(*info)},
                {"report", to_json(*report)},
                {"warnings", warnings}});
  } else {
    print_text(options.path, *info);
    std::printf("what was found in it\n");
    print_text(*report);
  }
  if (!sound) {
    std::fprintf(stderr, "keel: %s: %s\n", printable(options.path).c_str(),
                 report->message().c_str());
  }
  return sound ? kOk : kCheckFailed;
}

}  // namespace

void add_log_info(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("PATH", options.path, "The log file")->required();
    app.add_flag("--buffered", options.scan.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "info", "Print what a log says of itself, and how it ends",
                       define, run);
}

}  // namespace keel::tools
