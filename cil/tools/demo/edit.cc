#include "demo/edit.h"

#include <algorithm>

#include "demo/random.h"

namespace keel::tools {
namespace {

constexpr std::uint64_t kMostResizeBytes = 1024;
constexpr std::uint64_t kMostRangeBytes = 64;
constexpr std::uint64_t kMostRanges = 4;

void fill(std::vector<std::byte>& bytes, std::size_t from, std::size_t count, Random& random) {
  for (std::size_t i = from; i < from + count; ++i) {
    bytes[i] = static_cast<std::byte>(random.next());
  }
}

void append(std::vector<std::byte>& bytes, std::size_t most_bytes, Random& random) {
  const std::size_t before = bytes.size();
  const std::size_t room = std::max(most_bytes, before) - before;
  const std::size_t count = std::min<std::size_t>(1 + random.below(kMostResizeBytes), room);
  bytes.resize(before + count);
  fill(bytes, before, count, random);
}

void overwrite(std::vector<std::byte>& bytes, Random& random) {
  const std::uint64_t ranges = 1 + random.below(kMostRanges);
  for (std::uint64_t i = 0; i < ranges; ++i) {
    const std::size_t from = random.below(bytes.size());
    fill(bytes, from, std::min(1 + random.below(kMostRangeBytes), bytes.size() - from), random);
  }
}

}  // namespace

void apply_edit(std::vector<std::byte>& bytes, std::size_t file_bytes, std::uint64_t seed,
                std::uint32_t object, std::uint32_t version) {
  Random random(derive_seed(seed, object, version));
  const std::uint64_t kind = random.below(8);
  if (kind == 0 || bytes.empty()) {
    append(bytes, file_bytes + kMostGrowthBytes, random);
  } else if (kind == 1) {
    bytes.resize(bytes.size() -
                 std::min<std::size_t>(random.below(kMostResizeBytes), bytes.size()));
  } else {
    overwrite(bytes, random);
  }
}

}  // namespace keel::tools
