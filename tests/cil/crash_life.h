// A life in the crash lab: a journal from its open on what a crash left to its end, lived by
// committers on threads of their own; every other one ends with a close in order.
#pragma once

#include "crash_record.h"
#include "crash_run.h"
#include "support/sim_disk.h"

namespace keel_test::crash_lab {

// On the log of `disk`, which is the Os by then. What happened is in the record and, summed up, in
// the run's tally.
void live(Run& run, LifeRecord& record, keel::SimDisk& disk);

}  // namespace keel_test::crash_lab
