// What all lives of one run of a CrashPlan share. One lives at a time.
#pragma once

#include "crash_lab.h"
#include "crash_versions.h"
#include "support/spare_memory.h"

namespace keel_test::crash_lab {

struct Run {
  const CrashPlan& plan;
  Version last_version = 0;  // the record of the life that lives hands them out
  CrashTally tally{};
  // For judging states.
  keel::SpareMemory memory{};
  KnownContents contents{};
};

}  // namespace keel_test::crash_lab
