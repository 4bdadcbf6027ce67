// Whether what was recovered is what was promised.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "demo/plan.h"
#include "demo/recovered.h"
#include "keel/cil/recovery.h"

namespace keel::tools {

// What the parent knows of one log before it looks into it, over all its lives. It may know less
// than what happened (the child was killed before it could say it), never more: so it accuses
// nobody falsely, and what was acknowledged it knows for certain.
struct Ledger {
  std::uint32_t life = 0;  // the newest
  // Of each worker, number 1 first: what commit() returned.
  std::array<std::vector<RecoveredTransaction>, kMostThreads> committed;
  // Of each worker: its transactions up to here were acknowledged, or were recovered before.
  std::array<std::uint64_t, kMostThreads> acknowledged{};
  Sequence acknowledged_sequence{};

  // Takes over what was recovered: what is lost is forgotten, what is there must stay.
  void settle(const Recovered& recovered);
};

// No transaction in part (checked while `recovered` was built); every acknowledged one there; what
// is there is a prefix of the commit order; all transactions in the checkpoint that commit() named.
void judge_transactions(const Recovered& recovered, const RecoveryReport& report,
                        const Ledger& ledger, Findings& findings);

// Every object byte for byte as the files and the edits make it. Reads the files again; throws
// Failure if one of them has changed.
void judge_bytes(const Recovered& recovered, const Plan& plan, std::uint64_t seed,
                 Findings& findings);

}  // namespace keel::tools
