#include "system_objects.h"

#include <cstdlib>
#include <new>

#include "keel/base/check.h"

namespace keel {
namespace {

std::size_t alignment_for(std::size_t size) {
  return is_power_of_two(size) && size > SlabTable::kSlotBytes ? size : SlabTable::kSlotBytes;
}

const void* pointer(std::uintptr_t address) { return reinterpret_cast<const void*>(address); }

}  // namespace

SystemObjects::~SystemObjects() {
  for (const auto& [address, object] : live_) {
    std::free(reinterpret_cast<void*>(address));
  }
}

void* SystemObjects::allocate(std::size_t size, std::uint16_t tag) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment_for(size), size) != 0) {
    return nullptr;
  }
  if (!insert(reinterpret_cast<Address>(memory), {size, tag})) {
    std::free(memory);
    return nullptr;
  }
  return memory;
}

bool SystemObjects::insert(Address address, Object object) {
  MutexLock lock(lock_);
  try {
    const bool is_new = live_.emplace(address, object).second;
    KEEL_CHECK(is_new, "an address given out twice", address);
  } catch (const std::bad_alloc&) {
    return false;
  }
  ++counts_.allocations;
  counts_.live += Bytes(object.bytes);
  return true;
}

KmallocObject SystemObjects::free(void* address) {
  KmallocObject found;
  {
    MutexLock lock(lock_);
    found = name(reinterpret_cast<Address>(address));
    if (found.outcome != KmallocOutcome::kOk) {
      return found;
    }
    live_.erase(reinterpret_cast<Address>(address));
    freed_[counts_.frees++ % kRemembered] = {reinterpret_cast<Address>(address),
                                             {found.bytes.value(), found.tag}};
    counts_.live -= found.bytes;
  }
  // Last: the address may be another thread's at once.
  std::free(address);
  return found;
}

KmallocObject SystemObjects::find(const void* address) const {
  MutexLock lock(lock_);
  return name(reinterpret_cast<Address>(address));
}

KmallocObject SystemObjects::name(Address address) const {
  auto after = live_.upper_bound(address);
  if (after != live_.begin()) {
    const auto& [start, object] = *--after;
    if (start == address || address - start < object.bytes) {
      return {start == address ? KmallocOutcome::kOk : KmallocOutcome::kInterior, pointer(start),
              Bytes(object.bytes), object.tag};
    }
  }
  for (const Freed& freed : freed_) {
    if (freed.address == address && address != 0) {
      return {KmallocOutcome::kDouble, pointer(address), Bytes(freed.object.bytes),
              freed.object.tag};
    }
  }
  return {};
}

SystemObjects::Counts SystemObjects::counts() const {
  MutexLock lock(lock_);
  return counts_;
}

SlabTable::Census SystemObjects::audit() const {
  MutexLock lock(lock_);
  SlabTable::Census census;
  Address end = 0;
  for (const auto& [address, object] : live_) {
    KEEL_CHECK(address >= end, "objects overlap", address, end);
    end = address + object.bytes;
    ++census.objects;
    census.bytes += Bytes(object.bytes);
  }
  return census;
}

}  // namespace keel
