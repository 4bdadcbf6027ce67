#include "kmalloc.h"

#include <algorithm>
#include <new>

#include "keel/base/check.h"

namespace keel {

Result<std::unique_ptr<Kmalloc>> Kmalloc::create(const KmallocConfig& config) {
  std::unique_ptr<Kmalloc> made(new (std::nothrow) Kmalloc);
  if (made == nullptr) {
    return Error{Errc::kNoMemory, 0, "kmalloc"};
  }
  const Status opened = made->open(config);
  if (!opened) {
    return opened.error();
  }
  return made;
}

Status Kmalloc::open(const KmallocConfig& config) {
  if (config.backend == KmallocBackend::kSystem) {
    system_.reset(new (std::nothrow) SystemObjects);
    return system_ != nullptr ? Status() : Error{Errc::kNoMemory, 0, "map of small objects"};
  }
  KEEL_CHECK(config.source != nullptr, "kmalloc without a source of slabs");
  const Status reserved = table_.open(config.base, config.capacity);
  return reserved ? arenas_.open(*config.source, table_) : reserved;
}

void* Kmalloc::allocate(std::size_t size, std::uint16_t tag) {
  if (size == 0 || size > kKmallocMaxBytes) [[unlikely]] {
    return nullptr;
  }
  KEEL_ASSERT(tag <= kMaxKmallocTag, "owner tag of a small object", tag);
  if (system_ != nullptr) [[unlikely]] {
    return system_->allocate(size, tag);
  }
  void* object = arenas_.allocate(size);
  if (object != nullptr) [[likely]] {
    table_.mark_live(object, arenas_.object_bytes(size), tag);
  }
  return object;
}

KmallocObject Kmalloc::free(void* address) {
  if (system_ != nullptr) [[unlikely]] {
    return system_->free(address);
  }
  const KmallocObject found = table_.mark_freed(address);
  if (found.outcome == KmallocOutcome::kOk) [[likely]] {
    arenas_.free(address, found.bytes.value());
  }
  return found;
}

KmallocObject Kmalloc::find(const void* address) const {
  return system_ != nullptr ? system_->find(address) : table_.find(address);
}

std::size_t Kmalloc::size(const void* address) const {
  const KmallocObject found = find(address);
  return found.outcome == KmallocOutcome::kOk ? found.bytes.value() : 0;
}

bool Kmalloc::may_hold(std::size_t held, std::size_t size) const {
  const bool possible = size != 0 && size <= kKmallocMaxBytes;
  return possible && (system_ != nullptr ? size <= held : arenas_.object_bytes(size) == held);
}

bool Kmalloc::owns(const void* address) const {
  return system_ != nullptr ? system_->find(address).outcome != KmallocOutcome::kUnknown
                            : table_.is_slab(address);
}

Bytes Kmalloc::release() { return system_ != nullptr ? Bytes(0) : arenas_.release(); }

KmallocStats Kmalloc::stats() const {
  KmallocStats stats;
  if (system_ != nullptr) {
    const SystemObjects::Counts counts = system_->counts();
    stats.allocations = counts.allocations;
    stats.frees = counts.frees;
    stats.live = counts.live;
  } else {
    const SlabArenas::Counts counts = arenas_.counts();
    stats.allocations = counts.allocations;
    stats.frees = counts.frees;
    stats.refusals = arenas_.refusals();
    stats.bypasses = counts.bypasses;
    // An object may be counted as freed on one CPU before another's allocations are read.
    stats.live = counts.allocated - std::min(counts.allocated, counts.freed);
    stats.held = Bytes(bytes_of(arenas_.held()));
    stats.marks = Bytes(arenas_.most_held().value() * SlabTable::kBytesPerFrame);
  }
  stats.objects = stats.allocations - std::min(stats.allocations, stats.frees);
  return stats;
}

void Kmalloc::audit() const {
  const SlabTable::Census census = system_ != nullptr ? system_->audit() : table_.audit();
  const KmallocStats counted = stats();
  KEEL_CHECK(census.objects == counted.objects && census.bytes == counted.live,
             "live objects and bytes, found and counted", census.objects, counted.objects,
             census.bytes.value(), counted.live.value());
  KEEL_CHECK(Bytes(bytes_of(census.pages)) == counted.held, "pages of slabs, found and counted",
             census.pages.value(), pages_for(counted.held.value()).value());
}

}  // namespace keel
