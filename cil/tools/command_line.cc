// A command line of keel: parses it, runs one command, turns what went wrong into one line on
// standard error and an exit code.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "command.h"
#include "keel/base/version.h"
#include "output.h"

namespace keel::tools {
namespace {

constexpr const char* kFooter =
    "Exit codes:\n"
    "  0  all is well\n"
    "  1  a check failed: the log is damaged, or the demo found a promise broken\n"
    "  2  wrong flags or values\n"
    "  3  the world failed: I/O, no space, no permission, not found, not supported\n"
    "  4  the path is unfit: not a log, another version, in use, there already, or somebody "
    "else's\n"
    "128 + n  interrupted by signal n (Ctrl-C: 130): log bench and mem bench print what they had,\n"
    "   log create and log recover leave nothing";

// App::help() would print the help of the subcommand that was parsed, which is "help".
int print_help(CLI::App& app, const std::vector<std::string>& names) {
  CLI::App* about = &app;
  std::string parents;
  for (const std::string& name : names) {
    parents += about->get_name() + " ";
    const auto found =
        about->get_subcommands([&name](const CLI::App* sub) { return sub->get_name() == name; });
    if (found.empty()) {
      throw Failure(kUsage, name, "no such command (see keel --help)", "usage");
    }
    about = found.front();
  }
  const std::string text = about->get_formatter()->make_help(about, parents + about->get_name(),
                                                             CLI::AppFormatMode::Normal);
  std::fputs(text.c_str(), stdout);
  return kOk;
}

void define_commands(CLI::App& app, Context& context) {
  app.set_version_flag("--version", std::string("keel ") + kVersion);
  app.footer(kFooter);
  app.require_subcommand(1);
  add_demo(app, context);
  add_demo_ingest(app, context);
  CLI::App* log = app.add_subcommand("log", "Make log files, look into them, measure a journal");
  log->require_subcommand(1);
  add_log_create(*log, context);
  add_log_info(*log, context);
  add_log_dump(*log, context);
  add_log_recover(*log, context);
  add_log_verify(*log, context);
  add_log_bench(*log, context);
  CLI::App* mem = app.add_subcommand("mem", "What memory there is, and how fast it is had");
  mem->require_subcommand(1);
  add_mem_bench(*mem, context);
  add_mem_info(*mem, context);
  CLI::App* help = app.add_subcommand("help", "Print this help, or that of one command");
  help->allow_extras();
  help->callback([&app, &context, help] {
    const std::vector<std::string> names = help->remaining();
    context.json = std::find(names.begin(), names.end(), "--json") != names.end();
    context.run = [&app, help] { return print_help(app, help->remaining()); };
  });
}

// The flag may stand in a line that does not parse.
bool wants_json(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      return true;
    }
  }
  return false;
}

int fail(const Failure& failure, bool json) {
  std::fprintf(stderr, "keel: %s\n", failure.line().c_str());
  if (json) {
    print_json(failure.json());
  }
  return failure.exit_code();
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app("Memory path and journal of a kernel file system, as a library", "keel");
  Context context;
  define_commands(app, context);
  try {
    app.parse(argc, argv);
    return context.run();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);  // --help and --version
    }
    std::string text = error.what();
    if (const auto end = text.find('\n'); end != std::string::npos) {
      text.resize(end);
    }
    return fail({kUsage, "", text + " (see keel --help)", "usage"}, wants_json(argc, argv));
  } catch (const Failure& failure) {
    return fail(failure, context.json);
  } catch (const std::bad_alloc&) {
    return fail({kWorldFailed, "", "out of memory", to_string(Errc::kNoMemory)}, context.json);
  } catch (const std::exception& error) {
    return fail({kWorldFailed, "", error.what(), "system"}, context.json);
  }
}

}  // namespace keel::tools
