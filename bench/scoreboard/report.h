// The scoreboard's table, a row as soon as it is measured, and its JSON.
#pragma once

#include <string>
#include <vector>

#include "keel/base/result.h"
#include "scoreboard/runner.h"

namespace keel::bench {

void print_rows(const std::vector<RowDefinition>& rows);
void print_header();
void print_outcome(const Outcome& outcome);
// A row that cannot be measured on this machine, and why.
void print_skipped(const RowDefinition& row, const std::string& reason);
// A row whose measuring went wrong, and why.
void print_failed(const RowDefinition& row, const std::string& reason);
// How to read the table, and how many targets are met.
void print_footer(const std::vector<Outcome>& outcomes);

// An array of one object an outcome. Errors: kIo and what else the file gives.
[[nodiscard]] Status write_json(const std::string& path, const std::vector<Outcome>& outcomes,
                                bool smoke);

}  // namespace keel::bench
