// What keel's own items look like in a log. A log may hold anything: every count and bound is
// checked before it is used.

#include <cstring>
#include <optional>

#include "keel/cil/recovery.h"
#include "log/format.h"

namespace keel {
namespace {

// A struct that stands in a region at an offset which is a multiple of its size. Blocks are too, so
// it is not split over bulk and rest.
template <class Struct>
Struct read(const RecoveredRegion& region, std::size_t index) {
  static_assert(format::kMinBlockBytes % sizeof(Struct) == 0);
  const std::size_t at = index * sizeof(Struct);
  const bool in_bulk = at < region.bulk.size();
  Struct value;
  std::memcpy(&value,
              in_bulk ? region.bulk.data() + at : region.rest.data() + at - region.bulk.size(),
              sizeof value);
  return value;
}

// The item's header, which is all of its first region.
template <class Header>
std::optional<Header> header_of(const RecoveredItem& item, std::uint32_t type) {
  Header header{};
  if (item.type() != type || item.regions().empty() ||
      item.regions()[0].size_bytes() != sizeof header) {
    return std::nullopt;
  }
  item.regions()[0].copy_to(&header, sizeof header);
  return header;
}

Status check_size(std::span<const std::byte> given, std::uint64_t wanted) {
  if (given.size() == wanted) {
    return {};
  }
  return Error{Errc::kInvalidArgument, 0, "recovered onto another size; needs, bytes", wanted};
}

}  // namespace

std::optional<RecoveredRanges> RecoveredRanges::from(std::span<const RecoveredRegion> regions,
                                                     std::uint64_t range_count,
                                                     std::uint64_t size_bytes) {
  RecoveredRanges ranges;
  ranges.regions_ = regions;
  if (ranges.count() != range_count || (range_count == 0) != regions.empty() ||
      (range_count != 0 && regions[0].size_bytes() != range_count * sizeof(format::Range))) {
    return std::nullopt;
  }
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < range_count; ++i) {
    const auto range = read<format::Range>(regions[0], i);
    if (range.bytes == 0 || range.bytes != regions[i + 1].size_bytes() || range.offset < end ||
        range.offset > size_bytes || range.bytes > size_bytes - range.offset) {
      return std::nullopt;
    }
    end = range.offset + range.bytes;
  }
  return ranges;
}

std::uint64_t RecoveredRanges::offset(std::size_t i) const {
  return read<format::Range>(regions_[0], i).offset;
}

void RecoveredRanges::apply_to(std::span<std::byte> whole) const {
  for (std::size_t i = 0; i < count(); ++i) {
    const auto place = whole.subspan(offset(i), bytes(i).size_bytes());
    bytes(i).copy_to(place.data(), place.size());
  }
}

std::optional<RecoveredObject> RecoveredObject::from(const RecoveredItem& item) {
  const auto header = header_of<format::ObjectHeader>(item, format::kTypeObject);
  if (!header) {
    return std::nullopt;
  }
  RecoveredObject object;
  object.id = header->id;
  object.size_bytes = header->size_bytes;
  const auto following = item.regions().subspan(1);
  const auto operation = static_cast<format::ObjectOperation>(header->operation);
  if (operation == format::ObjectOperation::kWriteRanges) {
    const auto ranges = RecoveredRanges::from(following, header->range_count, header->size_bytes);
    object.partial = true;
    object.ranges = ranges.value_or(RecoveredRanges());
    return ranges ? std::optional(object) : std::nullopt;
  }
  object.erased = operation == format::ObjectOperation::kErase;
  if (following.size() == 1) {
    object.bytes = following[0];
  }
  const bool sound = (object.erased || operation == format::ObjectOperation::kWrite) &&
                     following.size() <= 1 && header->size_bytes == object.bytes.size_bytes() &&
                     !(object.erased && header->size_bytes != 0);
  return sound ? std::optional(object) : std::nullopt;
}

Status RecoveredObject::apply_to(std::span<std::byte> object) const {
  if (auto status = check_size(object, size_bytes); !status) {
    return status;
  }
  bytes.copy_to(object.data(), object.size());
  ranges.apply_to(object);
  return {};
}

std::optional<RecoveredRange> RecoveredRange::from(const RecoveredItem& item) {
  const auto header = header_of<format::RangeHeader>(item, format::kTypeRange);
  if (!header || header->range_count == 0) {
    return std::nullopt;
  }
  const auto ranges =
      RecoveredRanges::from(item.regions().subspan(1), header->range_count, header->size_bytes);
  return ranges ? std::optional(RecoveredRange{header->id, header->size_bytes, *ranges})
                : std::nullopt;
}

std::optional<RecoveredIntent> RecoveredIntent::from(const RecoveredItem& item) {
  const auto header = header_of<format::IntentHeader>(item, format::kTypeIntent);
  if (!header || item.regions().size() > 2) {
    return std::nullopt;
  }
  RecoveredIntent intent{header->id, {}};
  if (item.regions().size() == 2) {
    intent.payload = item.regions()[1];
  }
  return intent.payload.size_bytes() == header->payload_bytes ? std::optional(intent)
                                                              : std::nullopt;
}

std::optional<RecoveredDone> RecoveredDone::from(const RecoveredItem& item) {
  const auto header = header_of<format::DoneHeader>(item, format::kTypeDone);
  return header && item.regions().size() == 1 ? std::optional(RecoveredDone{header->id})
                                              : std::nullopt;
}

Status RecoveredRange::apply_to(std::span<std::byte> memory) const {
  if (auto status = check_size(memory, size_bytes); !status) {
    return status;
  }
  ranges.apply_to(memory);
  return {};
}

}  // namespace keel
