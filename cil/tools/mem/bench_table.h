// The rows of `keel mem bench` as a table for people.
#pragma once

#include <string>

#include "output.h"

namespace keel::tools {

// "62 ns", "1.8 us", "12.3 ms"
[[nodiscard]] std::string duration(double ns);

void print_table_head();
void print_table_rows(const Json& rows);

}  // namespace keel::tools
