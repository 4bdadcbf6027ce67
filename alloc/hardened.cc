#include "hardened.h"

#include <cstring>
#include <memory>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {
namespace {
constexpr std::byte kPattern{0xa5};
}

Status Hardened::open(Bytes quarantine) {
  slots_ = static_cast<Slot*>(os().metadata_allocate(kSlots * sizeof(Slot)));
  if (slots_ == nullptr) {
    return Error{Errc::kNoMemory, 0, "quarantine of buffers", kSlots};
  }
  std::uninitialized_value_construct_n(slots_, kSlots);
  most_ = pages_for(quarantine.value());
  return {};
}

Hardened::~Hardened() { os().metadata_free(slots_); }

void Hardened::mark_end(std::byte* buffer, std::size_t used, std::size_t held) {
  std::memset(buffer + used, static_cast<int>(kPattern), held - used);
}

const std::byte* Hardened::overrun(const std::byte* buffer, std::size_t used, std::size_t held) {
  for (std::size_t i = used; i < held; ++i) {
    if (buffer[i] != kPattern) {
      return buffer + i;
    }
  }
  return nullptr;
}

// The caller has made room with take_due() before, so a full ring is one that lags by some.
void Hardened::put(Pfn buffer, Pages held) {
  MutexLock lock(lock_);
  KEEL_CHECK(count_ < kSlots, "quarantine is full", count_);
  slots_[(first_ + count_) % kSlots] = {buffer, held};
  ++count_;
  pages_ += held;
}

bool Hardened::take_due(Pfn& buffer, bool all) {
  MutexLock lock(lock_);
  // Half of the ring stays free for threads between their take_due() and put().
  if (count_ == 0 || (!all && pages_ <= most_ && count_ < kSlots / 2)) {
    return false;
  }
  buffer = slots_[first_].buffer;
  pages_ -= slots_[first_].held;
  first_ = (first_ + 1) % kSlots;
  --count_;
  return true;
}

Pages Hardened::pages() const {
  MutexLock lock(lock_);
  return pages_;
}

}  // namespace keel
