// keel log create: makes a log file, whole, or leaves nothing; or a log on a block device.

#include "command.h"
#include "interrupt.h"
#include "keel/cil/log_file.h"
#include "log_text.h"
#include "output.h"

namespace keel::tools {
namespace {

struct Options {
  std::string path;
  LogConfig config{.size = Bytes(0)};
};

int run(const Context& context, const Options& options) {
  LogConfig config = options.config;
  // Where a file has its name before it is whole, the name must go again.
  const Interrupt interrupt;
  Progress progress;
  config.progress = [&progress](Bytes done, Bytes most) {
    Interrupt::check("no log was made");
    progress.show("writing", done, most);
  };
  const auto info = create_log(options.path, config);
  require(info, options.path);
  print_info(context, options.path, *info);
  return kOk;
}

}  // namespace

void add_log_create(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("PATH", options.path, "The new file, which must not exist, or a block device")
        ->required();
    add_size(app, "--size", options.config.size,
             "Size of the file, such as 256M; not for a block device, which is taken whole");
    add_size(app, "--max-checkpoint", options.config.max_checkpoint,
             "Largest checkpoint [a quarter of the log, at most 64M]");
    app.add_flag("--overwrite", options.config.overwrite,
                 "Take a block device whatever it holds; a file is never overwritten");
    app.add_flag("--buffered", options.config.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "create", "Make a log file", define, run);
}

}  // namespace keel::tools
