#include "again_needs.h"

#include <algorithm>

namespace keel {

void AgainNeeds::add(Lsn start, std::uint64_t need_bytes, bool joined) {
  newest_ = need_bytes + (joined ? newest_ : 0);
  joined_ = joined;
  const bool fresh =
      count_ == 0 ||
      (count_ < kMostStretches && (start - stretches_[count_ - 1].first).value() >= stretch_bytes_);
  if (fresh) {
    stretches_[count_++] = {start, start, newest_};
    return;
  }
  Stretch& stretch = stretches_[count_ - 1];
  stretch.last = start;
  stretch.most = std::max(stretch.most, newest_);
}

void AgainNeeds::tail_moved(Lsn tail) {
  std::size_t gone = 0;
  while (gone < count_ && stretches_[gone].last < tail) {
    ++gone;
  }
  if (gone != 0) {
    std::copy(stretches_.begin() + gone, stretches_.begin() + count_, stretches_.begin());
    count_ -= gone;
  }
}

std::uint64_t AgainNeeds::most() const {
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    most = std::max(most, stretches_[i].most);
  }
  return most;
}

}  // namespace keel
