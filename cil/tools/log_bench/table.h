// The rows of `keel log bench` as a table for people.
#pragma once

#include "output.h"

namespace keel::tools {

void print_log_table_head();
void print_log_table_row(const Json& row);

}  // namespace keel::tools
