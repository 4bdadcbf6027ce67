// The calls of keel.h, on the default pool.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/keel.h"

namespace {

using keel::AllocFlags;
using keel::default_pool;
using keel::try_default_pool;

constexpr bool same(int c_flag, AllocFlags flag) { return c_flag == static_cast<int>(flag); }
static_assert(same(KEEL_KERNEL, AllocFlags::kKernel) && same(KEEL_NOFS, AllocFlags::kNoFs) &&
              same(KEEL_NOWAIT, AllocFlags::kNoWait) && same(KEEL_NOFAIL, AllocFlags::kNoFail) &&
              same(KEEL_ZERO, AllocFlags::kZero) && same(KEEL_NOWARN, AllocFlags::kNoWarn) &&
              same(KEEL_RETRY_MAYFAIL, AllocFlags::kRetryMayfail));

AllocFlags flags_of(std::uint32_t flags) { return static_cast<AllocFlags>(flags); }
const char* tag_of(const char* owner) { return owner != nullptr ? owner : ""; }

}  // namespace

void* keel_kvmalloc(size_t size_bytes, uint32_t flags, const char* owner) {
  return keel::kvmalloc(size_bytes, flags_of(flags), tag_of(owner));
}

void* keel_kvzalloc(size_t size_bytes, uint32_t flags, const char* owner) {
  return keel_kvmalloc(size_bytes, flags | KEEL_ZERO, owner);
}

void keel_kvfree(void* address) { keel::kvfree(address); }

void keel_kvfree_sized(void* address, size_t size_bytes) {
  if (address != nullptr) {
    default_pool().kvfree_sized(address, size_bytes);
  }
}

size_t keel_kvsize(const void* address) {
  return address != nullptr ? default_pool().kvsize(address) : 0;
}

void* keel_kvrealloc(void* address, size_t size_bytes, uint32_t flags, const char* owner) {
  if (size_bytes == 0) {
    keel_kvfree(address);
    return nullptr;
  }
  if (address == nullptr) {
    return keel_kvmalloc(size_bytes, flags, owner);
  }
  return default_pool().kvrealloc(address, size_bytes, flags_of(flags), tag_of(owner));
}

int keel_reserve(size_t size_bytes) {
  // The only reason: it can never be had, cannot now, or would be the parent's of a forked child.
  const auto pool = try_default_pool();
  return pool.ok() && (*pool)->reserve(keel::Bytes(size_bytes)).ok() ? 0 : ENOMEM;
}

size_t keel_trim(void) {
  const auto pool = try_default_pool();
  return pool.ok() ? (*pool)->trim().value() : 0;
}

void keel_purge(void) {
  if (const auto pool = try_default_pool(); pool.ok()) {
    (*pool)->purge();
  }
}

size_t keel_stats_json(char* text, size_t room) {
  const auto pool = try_default_pool();
  try {
    const std::string json = pool.ok() ? keel::to_json((*pool)->stats()) : std::string();
    if (room != 0) {
      const std::size_t fits = std::min(json.size(), room - 1);
      std::memcpy(text, json.data(), fits);
      text[fits] = '\0';
    }
    return json.size();
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
