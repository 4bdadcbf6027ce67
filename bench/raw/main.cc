// raw_writer: the reference writer alone, for bench/check_raw_writer.sh. Prints bytes per second.

#include <CLI/CLI.hpp>
#include <cstdio>

#include "raw/raw_writer.h"

int main(int argc, char** argv) {
  using namespace keel::bench;
  RawWriterConfig config;
  std::string file;
  std::size_t units = 16;
  CLI::App app{"Writes FILE with O_DIRECT in blocks, a flush after each unit; prints bytes/s"};
  app.add_option("file", file, "made, or overwritten in place")->required();
  app.add_option("--block", config.block_bytes, "bytes of one write")->capture_default_str();
  app.add_option("--depth", config.depth, "writes in flight")->capture_default_str();
  app.add_option("--unit", config.unit_bytes, "bytes between flushes")->capture_default_str();
  app.add_option("--file-bytes", config.file_bytes, "size of FILE")->capture_default_str();
  app.add_flag("--reuse-memory", config.reuse_memory, "write the same block of memory each time");
  app.add_option("--units", units, "how many units to write")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  auto writer = RawWriter::create(file, config);
  if (!writer) {
    std::fprintf(stderr, "raw_writer: %s\n", writer.error().message().c_str());
    return 1;
  }
  const auto seconds = (*writer)->write_units(units);
  if (!seconds) {
    std::fprintf(stderr, "raw_writer: %s\n", seconds.error().message().c_str());
    return 1;
  }
  std::printf("%.0f\n", static_cast<double>(units * config.unit_bytes) / *seconds);
  return 0;
}
