#include "range_list.h"

#include <algorithm>

namespace keel::tools {

void RangeList::resize(std::uint64_t size_bytes) {
  const std::uint64_t before = size_bytes_.value_or(size_bytes);
  size_bytes_ = size_bytes;
  if (size_bytes > before) {
    add(before, size_bytes - before);
  }
}

void RangeList::add(std::uint64_t offset, std::uint64_t length_bytes) {
  ranges_.push_back({offset, offset + length_bytes});
  if (ranges_.size() >= join_at_) {
    join();
    join_at_ = std::max(join_at_, 2 * ranges_.size());
  }
}

void RangeList::join() {
  std::sort(ranges_.begin(), ranges_.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::size_t count = 0;
  for (const Range range : ranges_) {
    if (count > 0 && range.begin <= ranges_[count - 1].end) {
      ranges_[count - 1].end = std::max(ranges_[count - 1].end, range.end);
    } else {
      ranges_[count++] = range;
    }
  }
  ranges_.resize(count);
}

std::string RangeList::text() {
  join();
  std::string text;
  for (const Range& range : ranges_) {
    const std::uint64_t end = std::min(range.end, size_bytes_.value_or(0));
    if (range.begin < end) {
      text += std::to_string(range.begin) + " " + std::to_string(end - range.begin) + "\n";
    }
  }
  return text;
}

}  // namespace keel::tools
