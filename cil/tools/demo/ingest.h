// The process that ingests the tree and is killed for it: `keel demo-ingest`, started by the demo.
#pragma once

#include <cstdint>
#include <string>

#include "keel/base/units.h"

namespace keel::tools {

struct IngestOptions {
  std::string log;
  bool buffered = false;
  int plan_fd = -1;      // a memfd with encode(Plan)
  int notebook_fd = -1;  // a Notebook
  int pipe_fd = -1;      // for Messages
  std::uint64_t seed = 0;
  std::uint32_t life = 1;
  std::uint32_t threads = 1;
  Bytes budget{};  // ends when the log holds so much
};

// Never returns of itself: works, says that it is done, and waits for the kill.
[[noreturn]] void run_ingest(const IngestOptions& options);

}  // namespace keel::tools
