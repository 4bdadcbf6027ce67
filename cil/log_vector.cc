#include "log_vector.h"

#include <cstring>
#include <new>

#include "debug_switch.h"
#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "log/format.h"
#include "release_call.h"

namespace keel {
namespace {

constexpr std::size_t kUnit = format::kPackedUnitBytes;

std::size_t head_bytes(const SnapshotLayout& layout) {
  return sizeof(LogVector) + layout.packed_bytes;
}

template <class Header>
Header header_at(const std::byte* place) {
  Header header;
  std::memcpy(&header, place, sizeof header);
  return header;
}

}  // namespace

std::size_t log_vector_bytes(const SnapshotLayout& layout) {
  const std::size_t head = head_bytes(layout);
  return layout.large_bytes == 0 ? head : round_up(head, kPageBytes) + layout.large_bytes;
}

LogVector* allocate_log_vector(Pool& pool, const SnapshotLayout& layout, std::uint32_t block_bytes,
                               bool retry_contiguous) {
  const AllocFlags flags = allocate_under_context_lock() ? AllocFlags::kNoFail
                           : retry_contiguous            ? AllocFlags::kRetryMayfail
                                                         : AllocFlags::kKernel;
  void* memory = pool.kvmalloc(log_vector_bytes(layout), flags, "log vector");
  if (memory == nullptr) {
    return nullptr;
  }
  auto* vector = ::new (memory) LogVector{};
  vector->capacity_bytes = pool.kvsize(memory);
  vector->block_bytes = block_bytes;
  return vector;
}

SnapshotWriter::SnapshotWriter(LogVector& vector, const SnapshotLayout& layout)
    : vector_(vector),
      most_regions_(layout.region_count),
      packed_next_(reinterpret_cast<std::byte*>(&vector + 1)),
      packed_end_(packed_next_ + layout.packed_bytes),
      large_next_(reinterpret_cast<std::byte*>(&vector) + round_up(head_bytes(layout), kPageBytes)),
      large_end_(large_next_ + layout.large_bytes) {
  KEEL_CHECK(log_vector_bytes(layout) <= vector.capacity_bytes, "snapshot does not fit",
             log_vector_bytes(layout), vector.capacity_bytes);
  vector.next = nullptr;
  vector.packed_bytes = 0;
  vector.bulk_blocks = 0;
  vector.large = large_next_;
  vector.ordered = layout.ordered;
  vector.cancelled = false;
  vector.is_snapshot = false;
}

std::byte* SnapshotWriter::region(std::size_t bytes) {
  KEEL_CHECK(regions_ < most_regions_, "format() writes more regions than sized", most_regions_);
  const bool large = bytes >= vector_.block_bytes;
  const std::uint64_t blocks = large ? bytes / vector_.block_bytes : 0;
  const std::size_t rest = bytes - blocks * vector_.block_bytes;
  const std::size_t head = regions_ == 0 ? sizeof(format::ItemHeader) : 0;
  const std::size_t packed = head + format::region_packed_bytes(rest);
  const std::size_t apart = large ? round_up(bytes, kPageBytes) : 0;
  KEEL_CHECK(packed <= static_cast<std::size_t>(packed_end_ - packed_next_) &&
                 apart <= static_cast<std::size_t>(large_end_ - large_next_),
             "format() writes more bytes than sized", bytes);
  const format::RegionHeader header{static_cast<std::uint32_t>(blocks),
                                    static_cast<std::uint32_t>(rest)};
  std::memcpy(packed_next_ + head, &header, sizeof header);
  std::byte* data = packed_next_ + head + sizeof header;
  packed_next_ += packed;
  if (rest != 0) {
    std::memset(packed_next_ - kUnit, 0, kUnit);  // the padding
  }
  if (large) {
    data = large_next_;
    large_next_ += apart;
  }
  ++regions_;
  vector_.packed_bytes += packed;
  vector_.bulk_blocks += blocks;
  return data;
}

void SnapshotWriter::finish(std::uint32_t item_type) {
  if (regions_ == 0) {
    return;
  }
  const format::ItemHeader header{item_type, regions_};
  std::memcpy(&vector_ + 1, &header, sizeof header);
  check_headers();
  for (LargeRegions large(vector_); large.next();) {
    if (large.rest_bytes() != 0) {
      std::memcpy(const_cast<std::byte*>(large.packed_rest()),
                  large.data() + large.blocks() * vector_.block_bytes, large.rest_bytes());
    }
  }
}

// A client that writes beyond a region comes upon the next one's header: an item like that would
// make the whole checkpoint unreadable.
void SnapshotWriter::check_headers() const {
  const std::byte* at = vector_.packed() + sizeof(format::ItemHeader);
  std::uint64_t blocks = 0;
  std::uint32_t count = 0;
  for (; count < regions_ && at < packed_next_; ++count) {
    const auto header = header_at<format::RegionHeader>(at);
    at += format::region_packed_bytes(header.rest_bytes);
    blocks += header.bulk_blocks;
  }
  KEEL_CHECK(at == packed_next_ && count == regions_ && blocks == vector_.bulk_blocks,
             "format() wrote beyond the end of a region", vector_.packed_bytes);
}

LargeRegions::LargeRegions(const LogVector& vector)
    : block_bytes_(vector.block_bytes),
      packed_(vector.packed() + sizeof(format::ItemHeader)),
      next_data_(vector.large) {
  if (vector.bulk_blocks != 0) {
    left_ = header_at<format::ItemHeader>(vector.packed()).region_count;
  }
}

bool LargeRegions::next() {
  for (; left_ != 0; --left_) {
    header_ = header_at<format::RegionHeader>(packed_);
    packed_rest_ = packed_ + sizeof header_;
    packed_ += format::region_packed_bytes(header_.rest_bytes);
    if (header_.bulk_blocks != 0) {
      data_ = next_data_;
      next_data_ += round_up(std::uint64_t{header_.bulk_blocks} * block_bytes_ + header_.rest_bytes,
                             kPageBytes);
      --left_;
      return true;
    }
  }
  return false;
}

void ItemSize::region(std::size_t bytes) {
  if (region_count_ == 0) {
    packed_bytes_ += sizeof(format::ItemHeader);
  }
  ++region_count_;
  const bool large = bytes >= block_bytes_;
  const std::uint64_t blocks = large ? bytes / block_bytes_ : 0;
  large_bytes_ += large ? round_up(bytes, kPageBytes) : 0;
  bulk_blocks_ += blocks;
  packed_bytes_ += format::region_packed_bytes(bytes - blocks * block_bytes_);
}

void ItemFormatter::copy(const void* data, std::size_t bytes) {
  std::byte* place = reserve(bytes);
  if (bytes != 0) {
    std::memcpy(place, data, bytes);
  }
}

std::byte* ItemFormatter::reserve(std::size_t bytes) { return writer_.region(bytes); }

void ItemAccess::snapshot(LogItem& item, LogVector& vector, const SnapshotLayout& layout) {
  SnapshotWriter writer(vector, layout);
  if (!layout.ordered) {
    ItemFormatter formatter(writer);
    item.format(formatter);
    writer.finish(item.type());
  }
  vector.item = &item;
}

bool ItemAccess::try_pin(LogItem& item) {
  bool pins = false;
  (void)change_state(item, [&pins](std::uint32_t now) {
    pins = (now & (ItemState::kPins | ItemState::kReleaseWanted)) == 0;
    return pins ? now + 1 : now;
  });
  if (pins) {
    item.pin();
  }
  return pins;
}

bool ItemAccess::unpin(LogItem& item, bool leaves) {
  item.unpin(false);
  return take_pin(item, leaves, true);
}

bool ItemAccess::abort(LogItem& item) {
  // Before the count goes down, which orders it: nobody sees the item unpinned in between.
  item.aborted_.store(true, std::memory_order_relaxed);
  item.unpin(true);
  return take_pin(item, true, false);
}

// In one step with the hold: whoever sees an item that nothing holds may destroy it, or pin it for
// another checkpoint, which may then end on another thread. (Its release pairs with the acquire in
// pinned().)
bool ItemAccess::take_pin(LogItem& item, bool leaves, bool even_tracked) {
  return change_state(item, [&](std::uint32_t now) {
    const std::uint32_t left = now - 1;
    const bool wanted = (left & ItemState::kReleaseWanted) != 0 ||
                        (leaves && (even_tracked || (left & ItemState::kTracked) == 0));
    return wanted && (left & ItemState::kPins) == 0 ? ItemState::taken(left) : left;
  });
}

bool ItemAccess::stop_holding(LogItem& item) {
  bool stops = false;
  (void)change_state(item, [&stops](std::uint32_t now) {
    stops = (now & ItemState::kPins) != 0 || (now & ItemState::kReleaseWanted) == 0;
    return stops ? now & ~ItemState::kHeld : now;
  });
  return stops;
}

bool ItemAccess::may_clean(const LogItem& item) {
  if (item.pool_ != nullptr && !item.pool_->owned_by_this_process()) {
    return true;  // A forked child's copy: the lock asked for below may be taken for ever.
  }
  const std::uint32_t now = item.state_.load(std::memory_order_acquire);
  const bool is_to_stay =
      (now & (ItemState::kTracked | ItemState::kReleaseWanted)) == ItemState::kTracked;
  return (now & ItemState::kPins) == 0 && !(is_to_stay && ReleaseCall::is_under_way(item));
}

LogItem::LogItem(std::uint32_t type) : type_(type) {
  static_assert(kFirstClientType == format::kFirstClientType);
  KEEL_CHECK(type >= kFirstClientType, "item types below 16 are keel's own", type);
}

bool LogItem::pinned() const {
  return (state_.load(std::memory_order_acquire) & ItemState::kPins) != 0;
}

// Relaxed: whoever saw it unpinned sees what was said before.
bool LogItem::aborted() const { return aborted_.load(std::memory_order_relaxed); }

bool LogItem::tracked() const {
  return (state_.load(std::memory_order_acquire) & ItemState::kTracked) != 0;
}

bool LogItem::in_use() const {
  return (state_.load(std::memory_order_acquire) &
          (ItemState::kKnown | ItemState::kReleaseWanted)) != 0;
}

LogItem::~LogItem() {
  if (pool_ != nullptr && !pool_->owned_by_this_process()) {
    return;  // a forked child's copy: the journal and the vectors are the parent's
  }
  // Not 0 if release() is under way, on this thread or on another.
  const bool in_use = state_.load(std::memory_order_acquire) != 0 && !ReleaseCall::ends_with(*this);
  if (in_use || transaction_ != nullptr) {
    report_bug({.bug = Bug::kItemInUse,
                .call = "LogItem::~LogItem",
                .address = reinterpret_cast<std::uintptr_t>(this)});
  }
}

}  // namespace keel
