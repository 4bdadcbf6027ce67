// Batch: neighbouring records of a checkpoint on their way to the disk, in one write.
//
// I1 Its memory is taken when it is made: filling and writing it allocate nothing.
#pragma once

#include <sys/uio.h>

#include <cstdint>

#include "keel/base/result.h"
#include "keel/base/units.h"
#include "log/aligned_buffer.h"
#include "log/geometry.h"

namespace keel {

// Where a batch's parts go. It is in two pieces where it crosses the end of the data area.
struct BatchPieces {
  struct iovec* parts[2];
  int counts[2];  // the second is 0 if there is one piece
  std::uint64_t offsets[2];
};

struct Batch {
  AlignedBuffer staging;  // headers and packed bytes
  AlignedBuffer list;     // of parts
  Lsn lsn{};
  std::uint64_t bytes = 0;
  std::size_t staging_used = 0;
  int part_count = 0;

  // Errors: kNoMemory.
  [[nodiscard]] static Result<Batch> make(Pool& pool);
  [[nodiscard]] struct iovec* parts() const { return reinterpret_cast<struct iovec*>(list.data()); }
  // True if the next record might not fit, or the batch has `enough_bytes`.
  [[nodiscard]] bool is_full(std::uint64_t enough_bytes) const;
  // Empties it; the next record goes to `at`.
  void restart(Lsn at);
  // Splits the parts where that is needed. Once for each filling.
  [[nodiscard]] BatchPieces pieces(const Geometry& geometry);
};

}  // namespace keel
