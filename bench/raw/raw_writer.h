// RawWriter: the limit that a log's write bandwidth is held against. Writes a file that was written
// before, in order and round and round, with O_DIRECT, in blocks, and flushes after each unit.
//
// It stands outside keel on purpose: plain system calls, nothing of the journal, so that it is a
// yardstick and not the thing measured. bench/check_raw_writer.sh holds it against fio.
//
// Depth d is d threads with one write each in flight; a unit's flush begins when all its writes are
// done, as a checkpoint's does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "keel/base/result.h"
#include "support/journal_rig.h"

namespace keel::bench {

struct RawWriterConfig {
  std::size_t block_bytes = std::size_t{4} << 20;
  unsigned depth = 1;
  std::size_t unit_bytes = std::size_t{24} << 20;   // one fdatasync after each
  std::size_t file_bytes = std::size_t{512} << 20;  // rounded down to whole units
  // Write each block from the same memory, one block a worker, as fio does. Else a unit's blocks
  // come from a unit of memory: as cold as a checkpoint's, which costs where the device is fast.
  bool reuse_memory = false;
};

class RawWriter {
 public:
  // Makes the file, or takes it as it is if it has the size. Units: all multiples of 4096.
  [[nodiscard]] static Result<std::unique_ptr<RawWriter>> create(const std::string& path,
                                                                 const RawWriterConfig& config);
  ~RawWriter();
  RawWriter(const RawWriter&) = delete;
  RawWriter& operator=(const RawWriter&) = delete;

  // Writes and flushes `units` units; gives the seconds from the first write to the last flush.
  [[nodiscard]] Result<double> write_units(std::size_t units);

 private:
  RawWriter(int fd, const RawWriterConfig& config);
  [[nodiscard]] Status prepare_file() const;
  [[nodiscard]] int write_blocks(std::uint64_t offset, unsigned worker) const;

  const int fd_;
  const RawWriterConfig config_;
  const std::uint64_t units_in_file_;
  const TouchedBytes data_;  // a whole unit
  std::uint64_t next_unit_ = 0;
};

}  // namespace keel::bench
