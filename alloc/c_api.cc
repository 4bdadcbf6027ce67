// The calls of keel.h, on the default pool.
#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "keel/alloc/pool.h"
#include "keel/keel.h"
#include "pool_calls.h"

namespace {

using keel::AllocFlags;
using keel::default_pool;

constexpr bool same(int c_flag, AllocFlags flag) { return c_flag == static_cast<int>(flag); }
static_assert(same(KEEL_KERNEL, AllocFlags::kKernel) && same(KEEL_NOFS, AllocFlags::kNoFs) &&
              same(KEEL_NOWAIT, AllocFlags::kNoWait) && same(KEEL_NOFAIL, AllocFlags::kNoFail) &&
              same(KEEL_ZERO, AllocFlags::kZero) && same(KEEL_NOWARN, AllocFlags::kNoWarn) &&
              same(KEEL_RETRY_MAYFAIL, AllocFlags::kRetryMayfail));

AllocFlags flags_of(std::uint32_t flags) { return static_cast<AllocFlags>(flags); }
const char* tag_of(const char* owner) { return owner != nullptr ? owner : ""; }

int errno_of(const keel::Error& error) {
  if (error.sys_errno != 0) {
    return error.sys_errno;
  }
  switch (error.code) {
    case keel::Errc::kInvalidArgument: return EINVAL;
    case keel::Errc::kUnsupported: return ENOTSUP;
    case keel::Errc::kPermission: return EPERM;
    default: return ENOMEM;
  }
}

// Text into a caller's buffer that may be too small, or none.
class Writer {
 public:
  Writer(char* text, std::size_t room) : text_(text), room_(room) {}

  void add(const char* name, std::uint64_t value) {
    char piece[96];
    (void)std::snprintf(piece, sizeof piece, "%s\"%s\": %" PRIu64, length_ == 0 ? "{" : ", ", name,
                        value);
    append(piece);
  }
  std::size_t end() {
    append("}");
    return length_;
  }

 private:
  void append(std::string_view piece) {
    if (length_ + 1 < room_) {
      const std::size_t fits = std::min(piece.size(), room_ - 1 - length_);
      std::memcpy(text_ + length_, piece.data(), fits);
      text_[length_ + fits] = '\0';
    } else if (room_ != 0) {
      text_[room_ - 1] = '\0';
    }
    length_ += piece.size();
  }

  char* text_;
  std::size_t room_;
  std::size_t length_ = 0;
};

}  // namespace

void* keel_kvmalloc(size_t size_bytes, uint32_t flags, const char* owner) {
  return default_pool().kvmalloc(size_bytes, flags_of(flags), tag_of(owner));
}

void* keel_kvzalloc(size_t size_bytes, uint32_t flags, const char* owner) {
  return keel_kvmalloc(size_bytes, flags | KEEL_ZERO, owner);
}

void keel_kvfree(void* address) { default_pool().kvfree(address); }

void keel_kvfree_sized(void* address, size_t size_bytes) {
  keel::pool_calls::kvfree_sized(default_pool(), address, size_bytes);
}

size_t keel_kvsize(const void* address) { return default_pool().kvsize(address); }

void* keel_kvrealloc(void* address, size_t size_bytes, uint32_t flags, const char* owner) {
  return keel::pool_calls::kvrealloc(default_pool(), address, size_bytes, flags_of(flags),
                                     tag_of(owner));
}

int keel_reserve(size_t size_bytes) {
  const keel::Status reserved = keel::pool_calls::reserve(default_pool(), keel::Bytes(size_bytes));
  return reserved ? 0 : errno_of(reserved.error());
}

size_t keel_trim(void) { return default_pool().trim().value(); }

void keel_purge(void) { default_pool().purge(); }

size_t keel_stats_json(char* text, size_t room) {
  const keel::PoolStats stats = default_pool().stats();
  Writer json(text, room);
  json.add("contiguous_allocations", stats.contiguous_allocations);
  json.add("vmalloc_allocations", stats.vmalloc_allocations);
  json.add("failures", stats.failures);
  json.add("nofail_warnings", stats.nofail_warnings);
  json.add("frees", stats.frees);
  json.add("inline_growths", stats.inline_growths);
  json.add("purges", stats.purges);
  json.add("purged_pages", stats.purged_pages);
  json.add("purge_calls", stats.purge_calls);
  json.add("mappings", stats.mappings);
  json.add("capacity_bytes", stats.capacity.value());
  json.add("populated_bytes", stats.populated.value());
  json.add("free_bytes", stats.free.value());
  json.add("live_bytes", stats.live.value());
  json.add("lazy_bytes", stats.lazy.value());
  return json.end();
}
