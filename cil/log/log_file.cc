#include "log/log_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "keel/base/check.h"
#include "keel/base/no_throw.h"
#include "keel/base/os.h"

namespace keel {
Result<LogInfo> read_log_info(const std::string& path, bool buffered) {
  return no_throw("read a log", [&]() -> Result<LogInfo> {
    const auto pool = try_default_pool();
    if (!pool) {
      return pool.error();
    }
    auto file = LogFile::open(path, DeviceMode::kReadOnly, buffered, **pool);
    if (!file) {
      return file.error();
    }
    return file->info();
  });
}

std::string to_string(const std::array<std::uint8_t, 16>& uuid) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) {
      text += '-';
    }
    text += kDigits[uuid[i] >> 4U];
    text += kDigits[uuid[i] & 0x0fU];
  }
  return text;
}

Result<LogFile> LogFile::open(const std::string& path, DeviceMode mode, bool buffered, Pool& pool) {
  auto device = LogDevice::open(path, mode, buffered);
  if (!device) {
    return device.error();
  }
  auto block = AlignedBuffer::allocate(pool, format::kMaxBlockBytes, "log superblock");
  if (!block) {
    return block.error();
  }
  // A killed process may have left completed writes that no flush covered, and one whose flush
  // failed pages that never will be written. What recovery reads must be what a power cut would
  // leave, or it could deliver a checkpoint and then lose it.
  if (mode == DeviceMode::kReadWrite) {
    if (auto status = (*device)->flush(); !status) {
      return status.error();
    }
    (*device)->forget_cached();
  }
  return of(std::move(*device), std::move(*block));
}

Result<LogFile> LogFile::of(std::unique_ptr<LogDevice> device, AlignedBuffer block) {
  LogFile file(std::move(device), std::move(block));
  if (auto status = file.read_superblock(); !status) {
    return status.error();
  }
  if (auto status = file.read_state(); !status) {
    return status.error();
  }
  return file;
}

Status LogFile::read_superblock() {
  const std::uint64_t file_bytes = device_->file_bytes();
  if (file_bytes < kMinLogBytes.value()) {
    return Error{Errc::kNotALog, 0, "the file is too small to be a log, bytes", file_bytes};
  }
  // No block of a log that this file system can read directly is smaller.
  const std::uint64_t unit = device_->buffered() ? format::kMinBlockBytes : device_->alignment();
  bool other_version = false;
  bool truncated = false;
  Status unreadable;
  const auto try_at = [&](std::uint64_t offset) {
    // A copy that cannot be read is as good as a damaged one, as long as there is another.
    if (auto status = device_->read(offset, block_.data(), unit); !status) {
      unreadable = unreadable.ok() ? status : unreadable;
      return;
    }
    if (const auto found = decode_superblock(block_.data(), file_bytes)) {
      superblock_ = *found;
      ++valid_superblocks_;
    } else {
      format::Superblock raw;
      std::memcpy(&raw, block_.data(), sizeof raw);
      other_version |= raw.magic == format::kSuperblockMagic && raw.version != format::kVersion;
      truncated |= decode_superblock(block_.data(), UINT64_MAX).has_value();
    }
  };
  try_at(0);
  // The copy stands in the log's last block, whose place only a superblock tells: without one, try
  // the file's last block, of each size. It is not there if the file has grown since.
  for (std::uint64_t block = unit; block <= format::kMaxBlockBytes; block *= 2) {
    const std::uint64_t end =
        valid_superblocks_ > 0 ? superblock_.file_bytes : round_down(file_bytes, block);
    if (valid_superblocks_ > 0 && superblock_.block_bytes != block) {
      continue;
    }
    const int before = valid_superblocks_;
    try_at(end - block);
    if (valid_superblocks_ > before) {
      break;
    }
  }
  if (truncated) {
    return Error{Errc::kDamaged, 0, "the file is shorter than its superblock says, bytes",
                 file_bytes};
  }
  if (valid_superblocks_ == 0 && !other_version && !unreadable.ok()) {
    return unreadable;
  }
  if (valid_superblocks_ == 0) {
    return other_version ? Error{Errc::kBadVersion, 0, "this keel reads version", format::kVersion}
                         : Error{Errc::kNotALog, 0,
                                 "no valid superblock in the first block, nor in the last one", 0};
  }
  if (superblock_.block_bytes % device_->alignment() != 0 && !device_->buffered()) {
    return Error{Errc::kUnsupported, 0, "this file system wants direct I/O in units of",
                 device_->alignment()};
  }
  geometry_ = geometry_of(superblock_);
  return {};
}

// A slot that cannot be read may hold the newer state, as one that is torn may have been about to:
// nothing relies on a state that is not in both (I1).
Status LogFile::read_state() {
  Status unreadable;
  for (int slot = 0; slot < 2; ++slot) {
    if (auto status =
            device_->read(geometry_.state_offset(slot), block_.data(), superblock_.block_bytes);
        !status) {
      unreadable = unreadable.ok() ? status : unreadable;
      continue;
    }
    const auto found = decode_state(block_.data(), superblock_);
    if (found && (valid_states_ == 0 || found->generation > state_.generation)) {
      state_ = *found;
      newest_slot_ = slot;
    }
    valid_states_ += found ? 1 : 0;
  }
  if (valid_states_ == 0 && !unreadable.ok()) {
    return unreadable;
  }
  if (valid_states_ == 0) {
    return Error{Errc::kDamaged, 0, "both state slots are damaged", 0};
  }
  return {};
}

Status LogFile::write_state(format::StateSlot state) {
  state.generation = state_.generation + 1;
  state.uuid = superblock_.uuid;
  for (const int slot : {1 - newest_slot_, newest_slot_}) {
    std::memset(block_.data(), 0, superblock_.block_bytes);
    encode(state, block_.data());
    KEEL_CHECK(decode_state(block_.data(), superblock_), "a state that no reader would take",
               state.generation, state.tail_lsn, state.stable_lsn);
    if (auto status = device_->write_piece(geometry_.state_offset(slot), block_.data(),
                                           superblock_.block_bytes);
        !status) {
      return status;
    }
    if (auto status = device_->flush(); !status) {
      return status;
    }
  }
  state_ = state;
  valid_states_ = 2;
  return {};
}

Status LogFile::read(Lsn lsn, void* buffer, std::size_t bytes) const {
  const auto first = std::min<std::uint64_t>(bytes, geometry_.bytes_to_wrap(lsn));
  if (auto status = device_->read(geometry_.offset_of(lsn), buffer, first); !status) {
    return status;
  }
  if (first == bytes) {
    return {};
  }
  return device_->read(geometry_.data_offset(), static_cast<std::byte*>(buffer) + first,
                       bytes - first);
}

LogInfo LogFile::info() const {
  LogInfo info;
  info.uuid = superblock_.uuid;
  info.format_version = superblock_.version;
  info.block_bytes = superblock_.block_bytes;
  info.file = Bytes(superblock_.file_bytes);
  info.data = Bytes(superblock_.data_bytes);
  info.max_checkpoint = Bytes(superblock_.max_checkpoint_bytes);
  info.created_realtime_ns = superblock_.created_realtime_ns;
  info.alignment = device_->alignment();
  info.buffered = device_->buffered();
  info.copy_on_write = device_->copy_on_write();
  info.untrusted = device_->untrusted();
  info.valid_superblocks = valid_superblocks_;
  info.valid_states = valid_states_;
  info.state_generation = state_.generation;
  info.incarnation = state_.incarnation;
  info.tail = Lsn(state_.tail_lsn);
  info.stable = Lsn(state_.stable_lsn);
  info.clean = (state_.flags & format::kStateClean) != 0;
  return info;
}

}  // namespace keel
