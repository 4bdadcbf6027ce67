// The search for witnesses: whole records after the end of the chain. One of this incarnation tells
// that more was written than the chain shows, and what was stable when it was built.
//
// I1 A header is believed only if its lengths agree with each other and the record's hash is right.
// I2 Bytes hashed are at most a few times the bytes searched, whatever stands there: a forged
//    header in each block would else cost a record's length of hashing for each block.
// I3 Holes of the file are passed over, where the file system tells them: no record begins in one,
//    and a forged log of terabytes that takes no space would else be read for hours.
#pragma once

#include <functional>

#include "keel/base/result.h"
#include "log/checkpoint_reader.h"
#include "log/stable_evidence.h"

namespace keel {

struct SearchRange {
  Lsn from{};
  Lsn to{};     // where records must begin
  Lsn limit{};  // where they must have ended
};

// Adds what is found to `evidence`; true if there was any. `progress` is called now and then.
// `past_bad_blocks`: where a block cannot be read, there is no record.
// Errors: kIo, kDamaged (a short file), kNoMemory.
[[nodiscard]] Result<bool> search_witnesses(CheckpointReader& reader, const LogFile& file,
                                            const SearchRange& range, bool past_bad_blocks,
                                            StableEvidence& evidence,
                                            const std::function<void()>& progress);

}  // namespace keel
