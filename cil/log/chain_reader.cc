#include "log/chain_reader.h"

#include <algorithm>
#include <utility>

namespace keel {

ChainReader::ChainReader(const LogFile& file, CheckpointReader reader)
    : reader_(std::move(reader)),
      position_{Lsn(file.state().tail_lsn), file.state().tail_predecessor} {}

Result<ChainReader> ChainReader::make(const LogFile& file, const ReadAheadOptions& options) {
  auto reader = CheckpointReader::make(file, options);
  if (!reader) {
    return reader.error();
  }
  return ChainReader(file, std::move(*reader));
}

Result<ReadOutcome> ChainReader::next(Lsn end) {
  if (position_.lsn >= end) {
    return ReadOutcome{.beyond_end = true, .reason = CheckpointReader::kBeyondEnd};
  }
  position_.most_bytes = (end - position_.lsn).value();
  reader_.read_ahead(position_.lsn, std::min(end, position_.records_below));
  auto outcome = reader_.read(position_);
  if (!outcome) {
    return outcome;
  }
  if (outcome->proven) {
    position_.lsn += Bytes(outcome->id.bytes);
    position_.predecessor = outcome->id;
  }
  return outcome;
}

}  // namespace keel
