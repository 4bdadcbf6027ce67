#include "log/witness_search.h"

#include <algorithm>

namespace keel {
namespace {

// Bytes that may be hashed in vain for each byte searched, and to begin with. A crash leaves each
// record torn once, which is one for one; there are more only if somebody put them there.
constexpr std::uint64_t kHashedPerByte = 2;
constexpr std::uint64_t kHashedAtLeast = 16 * format::kMaxRecordBytes;

class Search {
 public:
  Search(CheckpointReader& reader, const LogFile& file, const SearchRange& range,
         bool past_bad_blocks)
      : reader_(reader),
        range_(range),
        past_bad_blocks_(past_bad_blocks),
        block_(file.geometry().block_bytes),
        max_checkpoint_(file.superblock().max_checkpoint_bytes),
        incarnation_(file.state().incarnation) {}

  // The header at `lsn` if a whole record of this incarnation stands there. `searched`: bytes that
  // were looked through before.
  Result<std::optional<format::RecordHeader>> witness_at(Lsn lsn, Bytes searched) {
    auto header = reader_.read_header(lsn);
    if (!header && is_passed_over(header.error())) {
      return std::optional<format::RecordHeader>();
    }
    if (!header || !*header || !is_candidate(**header, lsn)) {
      return header ? std::optional<format::RecordHeader>() : std::move(header);
    }
    const std::uint64_t bytes = reader_.bytes_of(**header);
    const std::uint64_t allowed = kHashedAtLeast + kHashedPerByte * searched.value();
    if (in_vain_ + bytes > allowed) {
      return std::optional<format::RecordHeader>();
    }
    const auto whole = reader_.record_is_whole(lsn, **header);
    if (!whole && is_passed_over(whole.error())) {
      in_vain_ += bytes;
      return std::optional<format::RecordHeader>();
    }
    if (!whole) {
      return whole.error();
    }
    in_vain_ += *whole ? 0 : bytes;
    return *whole ? std::move(header) : std::optional<format::RecordHeader>();
  }

 private:
  [[nodiscard]] bool is_passed_over(const Error& error) const {
    return past_bad_blocks_ && error.code == Errc::kIo;
  }
  [[nodiscard]] bool is_candidate(const format::RecordHeader& header, Lsn lsn) const {
    const std::uint64_t bytes = reader_.bytes_of(header);
    return header.incarnation == incarnation_ && header.checkpoint_bytes % block_ == 0 &&
           header.checkpoint_bytes <= max_checkpoint_ && bytes <= header.checkpoint_bytes &&
           header.record_count <= header.checkpoint_bytes / block_ &&
           bytes <= (range_.limit - lsn).value();
  }

  CheckpointReader& reader_;
  const SearchRange range_;
  const bool past_bad_blocks_;
  const std::uint32_t block_;
  const std::uint64_t max_checkpoint_;
  const std::uint64_t incarnation_;
  std::uint64_t in_vain_ = 0;
};

// The next bytes at or after `from`, below `to`, that may hold a record's beginning; whole blocks.
// They end where the data area wraps, at the latest. Empty, at `to`: there are none.
SearchRange next_data(const LogFile& file, Lsn from, Lsn to) {
  const Geometry& geometry = file.geometry();
  while (from < to) {
    const std::uint64_t offset = geometry.offset_of(from);
    const std::uint64_t end = std::min(geometry.bytes_to_wrap(from), (to - from).value());
    const LogDevice::Extent data = file.device().next_data(offset);
    const std::uint64_t skip = round_down(data.from - offset, geometry.block_bytes);
    if (skip < end) {
      const std::uint64_t stop = round_up(data.to - offset, geometry.block_bytes);
      return {from + Bytes(skip), from + Bytes(std::min(stop, end)), to};
    }
    from += Bytes(end);
  }
  return {to, to, to};
}

}  // namespace

Result<bool> search_witnesses(CheckpointReader& reader, const LogFile& file,
                              const SearchRange& range, bool past_bad_blocks,
                              StableEvidence& evidence, const std::function<void()>& progress) {
  Search search(reader, file, range, past_bad_blocks);
  bool found = false;
  Bytes searched{};
  SearchRange data{range.from, range.from, range.to};
  for (Lsn lsn = range.from; lsn < range.to;) {
    progress();
    if (lsn >= data.to) {
      data = next_data(file, lsn, range.to);
      lsn = data.from;
      if (data.from < data.to) {
        reader.read_ahead(data.from, data.to);
      }
      continue;
    }
    const auto record = search.witness_at(lsn, searched);
    if (!record) {
      return record.error();
    }
    Bytes step(file.geometry().block_bytes);
    if (*record) {
      found = true;
      evidence.note(**record, std::min(Lsn((*record)->stable_lsn), lsn));
      step = Bytes(reader.bytes_of(**record));
    }
    lsn += step;
    searched += step;
  }
  return found;
}

}  // namespace keel
