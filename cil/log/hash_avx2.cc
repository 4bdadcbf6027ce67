// XXH3's loop compiled for AVX2, whose registers are twice as wide as those of the SSE2 that every
// x86-64 has. Called only where the processor has it. No templates here: an instance compiled for
// AVX2 could be linked in elsewhere.

#include "log/hash_kernel.h"

namespace keel {

void hash_update_avx2(void* state, const void* data, std::size_t bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state), data, bytes);
}

}  // namespace keel
