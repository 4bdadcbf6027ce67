#include "keel/cil/object_item.h"

#include <algorithm>
#include <utility>

#include "keel/base/check.h"
#include "log/format.h"
#include "log_vector.h"

namespace keel {
namespace {

// What another range costs in the log: its entry, its region's header and padding. Ranges that are
// no further apart are cheaper as one.
constexpr std::size_t kRangeCost =
    sizeof(format::Range) + sizeof(format::RegionHeader) + format::kPackedUnitBytes;

}  // namespace

ObjectItem::ObjectItem(std::uint64_t id) : LogItem(BuiltIn{format::kTypeObject}), id_(id) {}

void ObjectItem::set(std::span<const std::byte> bytes) {
  bytes_ = bytes;
  state_ = State::kWhole;
  range_count_ = 0;
  dirty_ = true;
}

void ObjectItem::set(const void* data, std::size_t size_bytes) {
  set(std::span(static_cast<const std::byte*>(data), size_bytes));
}

void ObjectItem::attach(std::span<const std::byte> bytes) {
  if (state_ == State::kErased) {
    set(bytes);
    return;
  }
  const std::size_t before = std::exchange(bytes_, bytes).size();
  if (state_ == State::kNew) {
    state_ = State::kRanges;
    dirty_ = false;
  } else if (state_ == State::kRanges && bytes.size() != before) {
    dirty_ = true;
    if (bytes.size() < before) {
      cut_to(bytes.size());
    } else {
      add({before, bytes.size()});
    }
  }
}

void ObjectItem::mark(std::size_t offset, std::size_t length_bytes) {
  KEEL_CHECK(offset <= bytes_.size() && length_bytes <= bytes_.size() - offset,
             "mark() beyond the object's end", offset, length_bytes, bytes_.size());
  if (length_bytes == 0) {
    return;
  }
  dirty_ = true;
  if (state_ == State::kRanges) {
    add({offset, offset + length_bytes});
  }
}

void ObjectItem::erase() {
  bytes_ = {};
  state_ = State::kErased;
  range_count_ = 0;
  dirty_ = true;
}

void ObjectItem::clean() {
  if (!ItemAccess::may_clean(*this)) {
    return;
  }
  dirty_ = false;
  range_count_ = 0;
  state_ = state_ == State::kErased ? State::kErased : State::kRanges;
}

// Puts the range in its place and joins it with those that it comes close to.
void ObjectItem::add(Range range) {
  const auto begin = ranges_.begin();
  const auto end = begin + range_count_;
  const auto first = std::find_if(begin, end, [&](const Range& other) {
    return other.end + kRangeCost >= range.begin;  // the first that is not far before it
  });
  auto last = first;
  for (; last != end && last->begin <= range.end + kRangeCost; ++last) {
    range.begin = std::min(range.begin, last->begin);
    range.end = std::max(range.end, last->end);
  }
  if (first == last) {
    std::copy_backward(first, end, end + 1);
    ++range_count_;
  } else {
    std::copy(last, end, first + 1);
    range_count_ -= static_cast<std::uint32_t>(last - first - 1);
  }
  *first = range;
  if (range_count_ > kMostRanges) {
    join_nearest();
  }
}

void ObjectItem::join_nearest() {
  const auto gap = [this](std::uint32_t i) { return ranges_[i + 1].begin - ranges_[i].end; };
  std::uint32_t nearest = 0;
  for (std::uint32_t i = 1; i + 1 < range_count_; ++i) {
    nearest = gap(i) < gap(nearest) ? i : nearest;
  }
  ranges_[nearest].end = ranges_[nearest + 1].end;
  const auto begin = ranges_.begin();
  std::copy(begin + nearest + 2, begin + range_count_, begin + nearest + 1);
  --range_count_;
}

void ObjectItem::cut_to(std::size_t size_bytes) {
  while (range_count_ != 0 && ranges_[range_count_ - 1].begin >= size_bytes) {
    --range_count_;
  }
  if (range_count_ != 0) {
    Range& last = ranges_[range_count_ - 1];
    last.end = std::min(last.end, size_bytes);
  }
}

// Ranges that cover all of it are logged as the whole object, which needs nothing that is home.
bool ObjectItem::is_whole() const {
  return state_ != State::kRanges || bytes_.empty() ||
         (range_count_ == 1 && ranges_[0].end - ranges_[0].begin == bytes_.size());
}

std::size_t ObjectItem::dirty_bytes() const {
  if (!dirty_ || is_whole()) {
    return dirty_ ? bytes_.size() : 0;
  }
  std::size_t sum = 0;
  for (std::uint32_t i = 0; i < range_count_; ++i) {
    sum += ranges_[i].end - ranges_[i].begin;
  }
  return sum;
}

// Ranges lie further apart than another one costs, so one that is all of the object but a few bytes
// is the worst of all.
std::size_t ObjectItem::log_bytes(std::size_t size_bytes) { return log_bytes(size_bytes, 1); }

std::size_t ObjectItem::log_bytes(std::size_t dirty_bytes, std::size_t ranges) {
  return sizeof(format::ObjectHeader) + ranges * kRangeCost + dirty_bytes;
}

void ObjectItem::size(ItemSize& size) const {
  if (!dirty_) {
    return;
  }
  size.region(sizeof(format::ObjectHeader));
  if (is_whole()) {
    if (!bytes_.empty()) {
      size.region(bytes_.size());
    }
    return;
  }
  if (range_count_ != 0) {
    size.region(range_count_ * sizeof(format::Range));
  }
  for (std::uint32_t i = 0; i < range_count_; ++i) {
    size.region(ranges_[i].end - ranges_[i].begin);
  }
}

void ObjectItem::format(ItemFormatter& formatter) const {
  const bool whole = is_whole();
  const auto operation = state_ == State::kErased ? format::ObjectOperation::kErase
                         : whole                  ? format::ObjectOperation::kWrite
                                                  : format::ObjectOperation::kWriteRanges;
  const format::ObjectHeader header{id_, bytes_.size(), static_cast<std::uint32_t>(operation),
                                    whole ? 0 : range_count_};
  formatter.copy(&header, sizeof header);
  if (whole) {
    if (!bytes_.empty()) {
      formatter.copy(bytes_.data(), bytes_.size());
    }
    return;
  }
  std::array<format::Range, kMostRanges> table{};
  for (std::uint32_t i = 0; i < range_count_; ++i) {
    table[i] = {ranges_[i].begin, ranges_[i].end - ranges_[i].begin};
  }
  if (range_count_ != 0) {
    formatter.copy(table.data(), range_count_ * sizeof(format::Range));
  }
  for (std::uint32_t i = 0; i < range_count_; ++i) {
    formatter.copy(bytes_.data() + table[i].offset, table[i].bytes);
  }
}

}  // namespace keel
