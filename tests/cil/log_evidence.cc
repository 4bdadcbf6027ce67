#include "log_evidence.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <vector>

#include "log/format.h"
#include "log/geometry.h"
#include "log/hash.h"

using namespace keel;

namespace keel_test {
namespace {

class Search {
 public:
  Search(const SimContent& image, const format::Superblock& superblock,
         const format::StateSlot& state)
      : image_(image),
        superblock_(superblock),
        state_(state),
        geometry_(geometry_of(superblock)),
        limit_(state.tail_lsn + superblock.data_bytes) {}

  [[nodiscard]] std::uint64_t stable_beyond(std::uint64_t end) const {
    const std::uint64_t block = superblock_.block_bytes;
    const std::uint64_t half = superblock_.data_bytes / 2 / block * block;
    const std::uint64_t below = std::min(limit_, state_.stable_lsn + half);
    std::uint64_t stable = state_.stable_lsn;
    for (std::uint64_t lsn = end; lsn < below;) {
      format::RecordHeader header;
      std::memcpy(&header, image_.data() + geometry_.offset_of(Lsn(lsn)), sizeof header);
      if (is_whole(header, lsn)) {
        stable = std::max(stable, std::min(header.stable_lsn, lsn));
        lsn += bytes_of(header);
      } else {
        lsn += block;
      }
    }
    return stable;
  }

 private:
  [[nodiscard]] std::uint64_t bytes_of(const format::RecordHeader& header) const {
    const std::uint64_t block = superblock_.block_bytes;
    return (sizeof header + header.packed_bytes + block - 1) / block * block +
           header.bulk_blocks * block;
  }

  [[nodiscard]] bool is_whole(const format::RecordHeader& header, std::uint64_t lsn) const {
    const std::uint64_t block = superblock_.block_bytes;
    if (header.magic != format::kRecordMagic || header.version != format::kVersion ||
        header.header_bytes != sizeof header || header.uuid != superblock_.uuid ||
        header.incarnation != state_.incarnation || header.lsn != lsn ||
        header.packed_bytes > format::kMaxRecordPackedBytes ||
        header.bulk_blocks > format::kMaxRecordBulkBytes / block ||
        header.record_index >= header.record_count || header.checkpoint_bytes % block != 0 ||
        header.checkpoint_bytes > superblock_.max_checkpoint_bytes ||
        header.record_count > header.checkpoint_bytes / block ||
        bytes_of(header) > header.checkpoint_bytes || bytes_of(header) > limit_ - lsn) {
      return false;
    }
    std::vector<std::byte> record(bytes_of(header));
    const std::uint64_t first =
        std::min<std::uint64_t>(record.size(), geometry_.bytes_to_wrap(Lsn(lsn)));
    std::memcpy(record.data(), image_.data() + geometry_.offset_of(Lsn(lsn)), first);
    std::memcpy(record.data() + first, image_.data() + geometry_.data_offset(),
                record.size() - first);
    const std::uint64_t none = 0;
    std::memcpy(record.data() + offsetof(format::RecordHeader, record_hash), &none, sizeof none);
    return hash64(record.data(), record.size()) == header.record_hash;
  }

  const SimContent& image_;
  const format::Superblock& superblock_;
  const format::StateSlot& state_;
  const Geometry geometry_;
  const std::uint64_t limit_;
};

}  // namespace

LogEvidence evidence_beyond(const SimContent& image, std::uint64_t end) {
  auto superblock = decode_superblock(image.data(), image.size());
  if (!superblock) {
    superblock =
        decode_superblock(image.data() + image.size() - format::kMinBlockBytes, image.size());
  }
  if (!superblock) {
    return {};
  }
  std::optional<format::StateSlot> state;
  for (const int slot : {0, 1}) {
    const auto found =
        decode_state(image.data() + geometry_of(*superblock).state_offset(slot), *superblock);
    if (found && (!state || found->generation > state->generation)) {
      state = found;
    }
  }
  if (!state) {
    return {};
  }
  if ((state->flags & format::kStateClean) != 0) {
    return {true, state->stable_lsn};
  }
  return {true, Search(image, *superblock, *state).stable_beyond(end)};
}

}  // namespace keel_test
