#include "log/hash.h"

#include <new>

#include "log/hash_kernel.h"

namespace keel {
namespace {
XXH3_state_t* as_state(std::byte* bytes) { return reinterpret_cast<XXH3_state_t*>(bytes); }
const XXH3_state_t* as_state(const std::byte* bytes) {
  return reinterpret_cast<const XXH3_state_t*>(bytes);
}
}  // namespace

std::uint64_t hash64(const void* data, std::size_t bytes) { return XXH3_64bits(data, bytes); }

Hasher::Hasher() {
  static_assert(sizeof(XXH3_state_t) <= kStateBytes && alignof(XXH3_state_t) <= 64);
  ::new (state_) XXH3_state_t;
  XXH3_64bits_reset(as_state(state_));
}

void Hasher::update(const void* data, std::size_t bytes) {
#if defined(KEEL_HASH_AVX2)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) {
    hash_update_avx2(state_, data, bytes);
    return;
  }
#endif
  XXH3_64bits_update(as_state(state_), data, bytes);
}

std::uint64_t Hasher::digest() const { return XXH3_64bits_digest(as_state(state_)); }

}  // namespace keel
