// keel log verify: reads a log as recovery would, proves every checkpoint, and says what it found.
// Reads only.
//
// A torn end is what a crash leaves of a checkpoint that nobody was promised: a note, not a fault.
// A superblock is never written again after the log was made, so a bad copy is damage; a state slot
// is, so a bad one may be a crash's.

#include <cstdio>

#include "command.h"
#include "log_text.h"
#include "output.h"

namespace keel::tools {
namespace {

struct Options {
  std::string path;
  ScanOptions scan;
};

const char* verdict_of(const LogInfo& info, const RecoveryReport& report) {
  if (report.end == LogEnd::kDamaged) {
    return "damaged: what is known to have been stable does not prove itself";
  }
  if (info.valid_superblocks < 2) {
    return "damaged: one superblock; nothing is lost";
  }
  if (report.end == LogEnd::kTorn) {
    return "sound, with a torn end: an incomplete checkpoint that was never known to be stable";
  }
  return "sound";
}

int run(const Context& context, const Options& options) {
  const auto info = read_log_info(options.path, options.scan.buffered);
  require(info, options.path);
  const auto scanned = scan_whole(options.path, options.scan);
  require(scanned, options.path);
  const bool sound = scanned->end != LogEnd::kDamaged && info->valid_superblocks == 2;
  const Json warnings = warn_of(options.path, *info);
  const char* verdict = verdict_of(*info, *scanned);
  if (context.json) {
    print_json({{"ok", sound},
                {"path", options.path},
                {"verdict", verdict},
                {"report", to_json(*scanned)},
                {"log", to_json(*info)},
                {"warnings", warnings}});
  } else {
    std::printf("%s\n", printable(options.path).c_str());
    print_text(*scanned);
    std::printf("  %-15s %s\n", "verdict", verdict);
  }
  if (!sound) {
    std::fprintf(stderr, "keel: %s: %s\n", printable(options.path).c_str(), verdict);
  }
  return sound ? kOk : kCheckFailed;
}

}  // namespace

void add_log_verify(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("PATH", options.path, "The log file")->required();
    app.add_flag("--buffered", options.scan.buffered,
                 "Through the page cache, where there is no direct I/O");
  };
  add_command<Options>(parent, context, "verify", "Prove every checkpoint in a log", define, run);
}

}  // namespace keel::tools
