// keel log info: what a log says of itself. Reads only.

#include "command.h"
#include "keel/cil/log_file.h"
#include "log_text.h"
#include "output.h"

namespace keel::tools {
namespace {

struct Options {
  std::string path;
  bool buffered = false;
};

int run(const Context& context, const Options& options) {
  const auto info = read_log_info(options.path, options.buffered);
  require(info, options.path);
  print_info(context, options.path, *info);
  return kOk;
}

}  // namespace

void add_log_info(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("PATH", options.path, "The log file")->required();
    app.add_flag("--buffered", options.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "info", "Print what a log says of itself", define, run);
}

}  // namespace keel::tools
