// What the command line and the commands agree on: each command registers its options on a CLI11
// parser and, once the line is parsed, what is to run.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "keel/base/units.h"

namespace keel::tools {

struct Context {
  bool json = false;
  std::function<int()> run;  // set by the subcommand that was named; returns the exit code
};

// Adds subcommand `name` with --json and `Options` to fill in, which run(context, options) gets.
// `define(app, options)` adds the options.
template <class Options, class Define, class Run>
CLI::App* add_command(CLI::App& parent, Context& context, const char* name, const char* summary,
                      Define define, Run run) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(name, summary);
  define(*app, *options);
  app->add_flag("--json", context.json, "Print one JSON object instead of text, also for errors");
  app->callback([&context, options, run] {
    context.run = [&context, options, run] { return run(context, *options); };
  });
  return app;
}

// All options that are numbers are of these three. What is no such value, or not from `least` to
// `most`, is a wrong line.
// A whole number: decimal digits and nothing else.
inline constexpr std::uint64_t kMostNumber = std::numeric_limits<std::uint64_t>::max();
CLI::Option* add_number_for(CLI::App& app, const std::string& name, std::uint64_t least,
                            std::uint64_t most, std::function<void(std::uint64_t)> take,
                            const std::string& help);
// `most` must fit `out`.
template <class Number>
CLI::Option* add_number(CLI::App& app, const std::string& name, Number& out, std::uint64_t least,
                        std::uint64_t most, const std::string& help) {
  return add_number_for(
      app, name, least, most, [&out](std::uint64_t value) { out = static_cast<Number>(value); },
      help);
}
CLI::Option* add_seconds(CLI::App& app, const std::string& name, double& out, double least,
                         double most, const std::string& help);
// Digits, then nothing, K, M, G or T (powers of 1024).
CLI::Option* add_size(CLI::App& app, const std::string& name, Bytes& out, const std::string& help);

// Errors: false, `out` unchanged: not a number, not within the bounds; not a size, more than 2^62.
[[nodiscard]] bool parse_number(const std::string& text, std::uint64_t least, std::uint64_t most,
                                std::uint64_t& out);
[[nodiscard]] bool parse_size(const std::string& text, Bytes& out);

// Runs what the line says, as the binary does; the exit code.
[[nodiscard]] int run_command_line(int argc, char** argv);

void add_demo(CLI::App& parent, Context& context);
void add_demo_ingest(CLI::App& parent, Context& context);
void add_log_bench(CLI::App& parent, Context& context);
void add_log_create(CLI::App& parent, Context& context);
void add_log_info(CLI::App& parent, Context& context);
void add_log_dump(CLI::App& parent, Context& context);
void add_log_recover(CLI::App& parent, Context& context);
void add_log_verify(CLI::App& parent, Context& context);
void add_mem_bench(CLI::App& parent, Context& context);
void add_mem_info(CLI::App& parent, Context& context);

}  // namespace keel::tools
