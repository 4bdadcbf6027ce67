#include "log_vector.h"

#include <cstring>
#include <new>

#include "debug_switch.h"
#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "log/format.h"

namespace keel {
namespace {

// Of small regions in a vector, so that clients can format structs in place.
constexpr std::size_t kRegionAlign = 8;

std::size_t head_bytes(const SnapshotLayout& layout) {
  return sizeof(LogVector) + layout.region_count * sizeof(Region) + layout.small_bytes;
}

}  // namespace

SnapshotLayout layout_of(const ItemSize& size) {
  return {size.region_count(), size.is_ordered(), size.small_bytes(), size.large_bytes()};
}

std::size_t log_vector_bytes(const SnapshotLayout& layout) {
  const std::size_t head = head_bytes(layout);
  return layout.large_bytes == 0 ? head : round_up(head, kPageBytes) + layout.large_bytes;
}

LogVector* allocate_log_vector(Pool& pool, const SnapshotLayout& layout,
                               std::uint32_t block_bytes) {
  const AllocFlags flags =
      allocate_under_context_lock() ? AllocFlags::kNoFail : AllocFlags::kKernel;
  void* memory = pool.kvmalloc(log_vector_bytes(layout), flags, "log vector");
  if (memory == nullptr) {
    return nullptr;
  }
  auto* vector = ::new (memory) LogVector{};
  vector->capacity_bytes = pool.kvsize(memory);
  vector->block_bytes = block_bytes;
  reset_log_vector(*vector, layout);
  return vector;
}

void reset_log_vector(LogVector& vector, const SnapshotLayout& layout) {
  KEEL_CHECK(log_vector_bytes(layout) <= vector.capacity_bytes, "snapshot does not fit",
             log_vector_bytes(layout), vector.capacity_bytes);
  auto* base = reinterpret_cast<std::byte*>(&vector);
  vector.next = nullptr;
  vector.layout = layout;
  vector.region_count = 0;
  vector.small_next = base + sizeof(LogVector) + layout.region_count * sizeof(Region);
  vector.small_end = base + head_bytes(layout);
  vector.large_next = base + round_up(head_bytes(layout), kPageBytes);
  vector.large_end = vector.large_next + layout.large_bytes;
  vector.packed_bytes = 0;
  vector.bulk_blocks = 0;
  vector.cancelled = false;
  vector.is_snapshot = false;
}

std::byte* append_region(LogVector& vector, std::size_t bytes) {
  KEEL_CHECK(vector.region_count < vector.layout.region_count,
             "format() writes more regions than sized", vector.layout.region_count);
  const bool large = bytes >= vector.block_bytes;
  std::byte*& next_free = large ? vector.large_next : vector.small_next;
  const std::byte* end = large ? vector.large_end : vector.small_end;
  const std::size_t padded = round_up(bytes, large ? kPageBytes : kRegionAlign);
  KEEL_CHECK(padded <= static_cast<std::size_t>(end - next_free),
             "format() writes more bytes than sized", bytes);
  std::byte* data = next_free;
  next_free += padded;
  vector.regions()[vector.region_count++] = {data, bytes};
  const std::uint64_t blocks = large ? bytes / vector.block_bytes : 0;
  vector.bulk_blocks += blocks;
  vector.packed_bytes += vector.region_count == 1 ? sizeof(format::ItemHeader) : 0;
  vector.packed_bytes += format::region_packed_bytes(bytes - blocks * vector.block_bytes);
  return data;
}

void ItemSize::region(std::size_t bytes) {
  if (region_count_ == 0) {
    packed_bytes_ += sizeof(format::ItemHeader);
  }
  ++region_count_;
  const bool large = bytes >= block_bytes_;
  const std::uint64_t blocks = large ? bytes / block_bytes_ : 0;
  (large ? large_bytes_ : small_bytes_) += round_up(bytes, large ? kPageBytes : kRegionAlign);
  bulk_blocks_ += blocks;
  packed_bytes_ += format::region_packed_bytes(bytes - blocks * block_bytes_);
}

void ItemFormatter::copy(const void* data, std::size_t bytes) {
  std::byte* place = reserve(bytes);
  if (bytes != 0) {
    std::memcpy(place, data, bytes);
  }
}

std::byte* ItemFormatter::reserve(std::size_t bytes) { return append_region(vector_, bytes); }

// Relaxed: the pin publishes nothing.
void ItemAccess::pin(LogItem& item) {
  item.state_.fetch_add(1, std::memory_order_relaxed);
  item.pin();
}

bool ItemAccess::try_pin(LogItem& item) {
  std::uint32_t now = item.state_.load(std::memory_order_acquire);
  do {
    if ((now & (ItemState::kPins | ItemState::kReleaseWanted)) != 0) {
      return false;
    }
  } while (!item.state_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel));
  item.pin();
  return true;
}

// Nothing touches the item after its count went down, unless this thread is to let it go: whoever
// sees an item that the journal does not know may destroy it. Release pairs with the acquire in
// pinned().
std::uint32_t ItemAccess::unpin(LogItem& item, bool aborted) {
  item.unpin(aborted);
  return item.state_.fetch_sub(1, std::memory_order_acq_rel) - 1;
}

LogItem::LogItem(std::uint32_t type) : type_(type) {
  static_assert(kFirstClientType == format::kFirstClientType);
  KEEL_CHECK(type >= kFirstClientType, "item types below 16 are keel's own", type);
}

bool LogItem::pinned() const {
  return (state_.load(std::memory_order_acquire) & ItemState::kPins) != 0;
}

bool LogItem::tracked() const {
  return (state_.load(std::memory_order_acquire) & ItemState::kTracked) != 0;
}

LogItem::~LogItem() {
  if (pool_ != nullptr && !pool_->owned_by_this_process()) {
    return;  // a forked child's copy: the journal and the vectors are the parent's
  }
  if (state_.load(std::memory_order_acquire) != 0 || transaction_ != nullptr) {
    report_bug({.bug = Bug::kItemInUse,
                .call = "LogItem::~LogItem",
                .address = reinterpret_cast<std::uintptr_t>(this)});
  }
}

}  // namespace keel
