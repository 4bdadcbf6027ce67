#include "log/hash.h"

#include <new>

#define XXH_INLINE_ALL
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wundef"
#include <xxhash.h>
#pragma GCC diagnostic pop

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
  XXH3_64bits_update(as_state(state_), data, bytes);
}

std::uint64_t Hasher::digest() const { return XXH3_64bits_digest(as_state(state_)); }

}  // namespace keel
