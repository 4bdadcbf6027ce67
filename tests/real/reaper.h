#pragma once

namespace keel_test {

// Reads "+ kind path" and "- kind path" until the input ends; then removes what is left.
int run_reaper();

}  // namespace keel_test
