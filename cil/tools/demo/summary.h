// What the demo prints at its end: one table, or the same as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "demo/life.h"
#include "demo/plan.h"
#include "demo/recovered.h"
#include "keel/cil/recovery.h"
#include "output.h"

namespace keel::tools {

// One life, its death, and what was found after it.
struct LifeRow {
  std::uint32_t round = 0;
  std::uint32_t life = 0;
  LifeResult result;
  RecoveryReport report;
  bool through_journal = false;  // recovered by Journal::open, else by scan_log
  std::uint64_t objects = 0;     // found
  std::uint64_t transactions = 0;
  Findings findings;
};

struct Summary {
  std::string directory;
  std::uint64_t seed = 0;
  std::uint32_t rounds = 0;
  std::uint32_t threads = 0;
  Bytes log{};
  std::uint64_t files = 0, objects = 0, unreadable = 0;
  Bytes bytes{};
  std::uint64_t duration_ns = 0;
  std::vector<LifeRow> rows;
  std::string kept_log;  // empty: removed

  [[nodiscard]] bool held() const;
};

void print_text(const Summary& summary);
[[nodiscard]] Json to_json(const Summary& summary);

}  // namespace keel::tools
