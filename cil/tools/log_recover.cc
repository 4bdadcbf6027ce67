// keel log recover: what a log holds, as files. The log is only read.
//
// Damage is refused unless --salvage asks to go on without what is lost; a torn end is what a crash
// leaves of a checkpoint that nobody was promised, and only noted.

#include <cstdio>
#include <optional>

#include "command.h"
#include "interrupt.h"
#include "log_text.h"
#include "output.h"
#include "recovered_directory.h"

namespace keel::tools {
namespace {

constexpr const char* kDetails =
    "Writes the newest state of each object to DIR/ID, ID being 16 hex digits; an erased object\n"
    "has no file.\n"
    "Of an object that the log holds only in part, ID.partial has those parts in their places,\n"
    "and ID.ranges has a line \"OFFSET LENGTH\" for each, in bytes. What is home is to be cut, or\n"
    "grown with zeros, to the size of ID.partial; then these bytes of ID.partial belong over it,\n"
    "and no others: those between them are not known.\n"
    "Items that are no objects go to DIR/items.jsonl in the order of the log, one JSON object a\n"
    "line: sequence, type, and the regions' bytes in hex.\n"
    "DIR gets its name when all of it is written and synced; until then there is only\n"
    "DIR.keel-XXXXXX beside it. An empty DIR is replaced: the new one has its mode. So it cannot\n"
    "be a mount point; a directory in that can.\n"
    "Damage is refused (exit code 1); with --salvage what stands before it is written, and the\n"
    "report tells what is lost. A torn end, as a crash leaves it, is no damage.";

struct Options {
  std::string path;
  std::string directory;
  bool salvage = false;
  ScanOptions scan;
};

// Failure cannot pass through the scan; it is thrown again behind it.
class Handler {
 public:
  explicit Handler(RecoveredDirectory& directory) : directory_(directory) {}

  Status take(const RecoveredCheckpoint& checkpoint) {
    try {
      directory_.add(checkpoint);
      return {};
    } catch (const Failure& failure) {
      failure_ = failure;
      return Error{Errc::kSystem, 0, "write what was recovered", 0};
    }
  }
  void rethrow() const {
    if (failure_) {
      throw Failure(*failure_);
    }
  }

 private:
  RecoveredDirectory& directory_;
  std::optional<Failure> failure_;
};

RecoveryReport read_log(const Options& options, RecoveredDirectory& directory) {
  Progress progress;
  Handler handler(directory);
  ScanOptions scan = options.scan;
  scan.salvage = options.salvage;
  // Behind the last item half of the log may be looked through.
  scan.progress = [&progress](Bytes done, Bytes most) {
    Interrupt::check();
    progress.show("recovering", done, most);
  };
  const auto scanned = scan_log(
      options.path,
      [&handler](const RecoveredCheckpoint& checkpoint) { return handler.take(checkpoint); }, scan);
  progress.clear();
  handler.rethrow();
  Interrupt::check();
  require(scanned, options.path);
  return *scanned;
}

void print_result(const Context& context, const Options& options, const RecoveredDirectory& made,
                  const RecoveryReport& report) {
  if (context.json) {
    print_json({{"ok", true},
                {"path", options.path},
                {"directory", options.directory},
                {"objects", made.objects()},
                {"partial_objects", made.partial_objects()},
                {"other_items", made.other_items()},
                {"salvaged", report.end == LogEnd::kDamaged},
                {"report", to_json(report)}});
    return;
  }
  std::printf("%s\n", printable(options.path).c_str());
  print_text(report);
  std::printf("  %-15s %s objects (%s of them in part), %s other items in %s\n", "recovered",
              grouped(made.objects()).c_str(), grouped(made.partial_objects()).c_str(),
              grouped(made.other_items()).c_str(), printable(options.directory).c_str());
}

int run(const Context& context, const Options& options) {
  const Interrupt interrupt;
  const auto info = read_log_info(options.path, options.scan.buffered);
  require(info, options.path);
  (void)warn_of(options.path, *info);
  RecoveredDirectory directory(options.directory);
  const RecoveryReport report = read_log(options, directory);
  if (report.end == LogEnd::kDamaged) {
    if (!options.salvage) {
      throw Failure(kCheckFailed, options.path,
                    report.message() + "; nothing was written (--salvage writes what is before)",
                    to_string(Errc::kDamaged));
    }
    warn(options.path, report.message());
  }
  directory.publish();
  print_result(context, options, directory, report);
  return kOk;
}

}  // namespace

void add_log_recover(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_option("PATH", options.path, "The log file")->required();
    app.add_option("--to-directory", options.directory, "New or empty directory for the files")
        ->required()
        ->type_name("DIR");
    app.add_flag("--salvage", options.salvage, "Go on without what is damaged");
    app.add_flag("--buffered", options.scan.buffered,
                 "Through the page cache, where there is no direct I/O");
    app.footer(kDetails);
  };
  add_command<Options>(parent, context, "recover", "Write what a log holds to files", define, run);
}

}  // namespace keel::tools
