// LogFile: an open log: its device, its superblock, and its state slots.
//
// I1 A state is written to one slot, flushed, then to the other, flushed; first to the one that
//    does not hold the newest state (an earlier crash may have torn it). So at any moment one slot
//    is whole and holds the newest complete state, whether a crash tears the other or it rots.
// I2 A copy of what is kept twice that cannot be read counts as a damaged one: the other is enough.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/base/result.h"
#include "keel/cil/log_file.h"
#include "log/aligned_buffer.h"
#include "log/geometry.h"
#include "log/log_device.h"

namespace keel {

class LogFile {
 public:
  // Errors: those of LogDevice::open, kNotALog, kBadVersion, kDamaged, kIo (no good copy, and one
  // that could not be read), kNoMemory.
  [[nodiscard]] static Result<LogFile> open(const std::string& path, DeviceMode mode, bool buffered,
                                            Pool& pool);

  // Of a device that is open, with a buffer of kMaxBlockBytes at least.
  [[nodiscard]] static Result<LogFile> of(std::unique_ptr<LogDevice> device, AlignedBuffer block);

  LogFile(LogFile&&) = default;

  [[nodiscard]] const format::Superblock& superblock() const { return superblock_; }
  [[nodiscard]] const Geometry& geometry() const { return geometry_; }
  [[nodiscard]] const format::StateSlot& state() const { return state_; }
  [[nodiscard]] LogDevice& device() const { return *device_; }
  [[nodiscard]] LogInfo info() const;

  // Makes `state` the newest one, stable in both slots; sets its generation. No allocation.
  [[nodiscard]] Status write_state(format::StateSlot state);

  // Reads log bytes; the range may wrap. `bytes` is at most the log size, both are block multiples.
  [[nodiscard]] Status read(Lsn lsn, void* buffer, std::size_t bytes) const;

 private:
  LogFile(std::unique_ptr<LogDevice> device, AlignedBuffer block)
      : device_(std::move(device)), block_(std::move(block)) {}

  [[nodiscard]] Status read_superblock();
  [[nodiscard]] Status read_state();

  std::unique_ptr<LogDevice> device_;
  AlignedBuffer block_;  // for superblocks and state slots
  format::Superblock superblock_{};
  Geometry geometry_{};
  format::StateSlot state_{};
  int valid_superblocks_ = 0;
  int valid_states_ = 0;
  int newest_slot_ = 1;  // that holds state_; if both do, either
};

}  // namespace keel
