// Limits that a process puts on itself.
#pragma once

#include "writer.h"

namespace keel_test {

// WriterPlan::limited says which.
void impose_limit(const WriterPlan& plan);

}  // namespace keel_test
