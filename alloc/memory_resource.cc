#include "keel/alloc/memory_resource.h"

#include <algorithm>
#include <bit>
#include <new>

#include "keel/base/units.h"

namespace keel {
namespace {

// What a pool gives to every buffer.
constexpr std::size_t kAlwaysAligned = 16;

// The size to ask for, so that what comes is aligned as wanted: below a page that is a power of
// two, which the pool aligns to itself; from a page up all is page-aligned.
std::size_t size_for(std::size_t bytes, std::size_t alignment) {
  const std::size_t least = std::max({bytes, alignment, std::size_t{1}});
  return alignment <= kAlwaysAligned ? std::max(bytes, std::size_t{1})
         : least >= kPageBytes       ? least
                                     : std::bit_ceil(least);
}

}  // namespace

void* PoolResource::do_allocate(std::size_t bytes, std::size_t alignment) {
  void* address = alignment <= kPageBytes
                      ? pool_->kvmalloc(size_for(bytes, alignment), AllocFlags::kKernel, owner_)
                      : nullptr;
  if (address == nullptr) {
    throw std::bad_alloc();
  }
  return address;
}

void PoolResource::do_deallocate(void* address, std::size_t /*bytes*/, std::size_t /*alignment*/) {
  pool_->kvfree(address);
}

bool PoolResource::do_is_equal(const std::pmr::memory_resource& other) const noexcept {
  const auto* resource = dynamic_cast<const PoolResource*>(&other);
  return resource != nullptr && resource->pool_ == pool_;
}

}  // namespace keel
