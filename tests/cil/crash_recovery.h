// What recovery delivers of a crashed disk in the crash lab: for each object the version that it
// has in the log, if the bytes are of one.
#pragma once

#include <array>
#include <string>

#include "crash_versions.h"
#include "keel/alloc/pool.h"
#include "keel/base/result.h"
#include "keel/cil/journal.h"

namespace keel_test::crash_lab {

struct Recovered {
  keel::Error error{};
  bool ok = false;
  keel::RecoveryReport report{};
  Versions versions{};  // 0: not in the log
  std::array<bool, kCrashObjects> erased{};
  std::string fault;  // bytes that belong to no version

  [[nodiscard]] bool in_log(std::size_t id) const { return versions[id] != 0 || erased[id]; }
};

// Notes in `recovered` what it is handed.
[[nodiscard]] keel::RecoveryHandler collector(Recovered& recovered, KnownContents& contents);

// Of the log at kLogPath, as Journal::open() recovers, without what it writes afterwards. `ahead`:
// by threads, as it does; else by one and without memory of its own.
[[nodiscard]] Recovered recover(keel::Pool& pool, KnownContents& contents, bool ahead);

}  // namespace keel_test::crash_lab
