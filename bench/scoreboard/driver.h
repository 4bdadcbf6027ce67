// A program that prints its figures as one JSON object.
#pragma once

#include "scoreboard/family.h"
#include "support/child.h"

namespace keel::bench {

// Runs it; gives the members that are numbers. Errors: run_child()'s; kSystem if it printed no such
// object.
[[nodiscard]] Result<Figures> run_for_figures(const Command& command);

}  // namespace keel::bench
