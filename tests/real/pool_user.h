#pragma once

#include "writer.h"

namespace keel_test {

// Uses a pool under the limit of the plan: allocates, writes, checks and frees; every call has to
// succeed or to say no. 0; kWriterNotOpened if there is no pool; 1 if a buffer lost its bytes.
int run_pool_user(const WriterPlan& plan);

}  // namespace keel_test
