// The writer: a process that commits transactions whose contents the ledger tells, forces some,
// writes objects home, until it is done, killed, or meets an error; then it sees whether anything
// still succeeds.
#pragma once

#include "writer_plan.h"

namespace keel_test {

// Exit codes of the writer.
inline constexpr int kWriterDone = 0;
inline constexpr int kWriterFailed = 10;     // met an error, and everything failed from then on
inline constexpr int kWriterNotOpened = 11;  // the journal could not be opened
inline constexpr int kWriterUnsound = 12;    // something succeeded after the error

int run_writer(const WriterPlan& plan);

}  // namespace keel_test
