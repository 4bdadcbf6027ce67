// memory.preload.*: do real programs run right under libkeel-malloc.so, and as fast as under
// jemalloc?
//
// sqlite3 with an in-memory database, g++ on a source full of templates, and a python3 script that
// makes and parses large strings (preload_programs.cc). Each program's output must be, byte for
// byte, what it prints without a preload, or the row fails. Seconds of the whole process, at most
// 1.05x jemalloc's; the C library's own malloc is shown beside it.

#include <map>

#include "scoreboard/family.h"
#include "scoreboard/preload_programs.h"
#include "support/child.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

using Outputs = std::map<std::string, std::string>;

// Runs all programs; an empty library means none.
Result<Figures> run_programs(const std::vector<Program>& programs, const std::string& library,
                             const Outputs& expected) {
  Figures figures;
  for (const Program& program : programs) {
    Command command{program.arguments, {"LC_ALL=C"}};
    if (!library.empty()) {
      command.environment.push_back("LD_PRELOAD=" + library);
    }
    const Stopwatch watch;
    const auto output = run_child(command);
    if (!output) {
      return output.error();
    }
    figures[program.name] = watch.seconds();
    if (*output != expected.at(program.name)) {
      return Error{Errc::kDamaged, 0, "a program printed something else under the preload", 0};
    }
  }
  return figures;
}

// The library that stands where this build puts it; empty if the build has none.
std::string keel_library() {
#ifdef KEEL_MALLOC_LIBRARY
  return sibling_program(KEEL_MALLOC_LIBRARY);
#else
  return "";
#endif
}

Result<Outputs> plain_outputs(const std::vector<Program>& programs) {
  Outputs outputs;
  for (const Program& program : programs) {
    auto output = run_child({program.arguments, {"LC_ALL=C"}});
    if (!output) {
      return output.error();
    }
    outputs[program.name] = std::move(*output);
  }
  return outputs;
}

Result<Study> prepare(const Setting& setting) {
  Study study;
  const std::string ours = keel_library();
  const std::string jemalloc = find_library("libjemalloc.so.2");
  if (ours.empty() || jemalloc.empty()) {
    study.skipped = ours.empty() ? "libkeel-malloc.so is not built"
                                 : "libjemalloc2 is not installed (third_party/setup.sh bench)";
    return study;
  }
  const auto programs = write_programs(setting.dir, setting.smoke);
  if (!programs) {
    return programs.error();
  }
  const auto expected = plain_outputs(*programs);
  if (!expected) {
    return expected.error();
  }
  const auto under = [programs = *programs, expected = *expected](const std::string& library) {
    return [=] { return run_programs(programs, library, expected); };
  };
  study.ours = under(ours);
  study.peers = {{"jemalloc", under(jemalloc)}, {"glibc", under(""), true}};
  study.rounds = 5;
  return study;
}

RowDefinition row(const char* name, const char* figure, const char* question) {
  return figure_row(name, figure, "s", Goal::kRatioAtMost, 1.05, question);
}

const FamilyRegistration kPreload{
    {{row("memory.preload.sqlite", "sqlite", "sqlite3 under libkeel-malloc.so, output compared"),
      row("memory.preload.compiler", "compiler", "g++ under it, output compared"),
      row("memory.preload.python", "python", "a python3 script under it, output compared")},
     prepare}};

}  // namespace
}  // namespace keel::bench
