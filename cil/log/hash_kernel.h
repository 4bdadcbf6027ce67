// The one place that includes xxHash, header-only. Included by each file that compiles it for
// another instruction set; all of xxHash is local to that file.
#pragma once

#define XXH_INLINE_ALL
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wundef"
#include <xxhash.h>
#pragma GCC diagnostic pop

#include <cstddef>

namespace keel {

// hash_avx2.cc. `state` is an XXH3_state_t; its layout does not depend on the instruction set.
void hash_update_avx2(void* state, const void* data, std::size_t bytes);

}  // namespace keel
