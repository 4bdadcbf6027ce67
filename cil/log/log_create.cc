// Making a log: all of it is written once, so that no later write has to find space or to mark an
// extent written.
//
// I1 A superblock is seen only while all else is stable: who finds one finds the log it speaks of.
//    That of a log which is overwritten goes first, that of the new one comes last.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "keel/base/no_throw.h"
#include "keel/base/os.h"
#include "keel/cil/log_file.h"
#include "log/aligned_buffer.h"
#include "log/geometry.h"
#include "log/log_device.h"
#include "log/log_file.h"

namespace keel {
namespace {

// What is written at a time while a log is made.
constexpr std::size_t kZeroBytes = std::size_t{1} << 20;
// What check_empty() reads of either end of a device: some file systems have their superblock, and
// nothing before it, at 64 KiB, 128 KiB or 256 KiB less a label.
constexpr std::size_t kEndBytes = std::size_t{256} << 10;
static_assert(2 * kEndBytes + format::kMaxBlockBytes <= kZeroBytes);
static_assert(2 * kEndBytes <= kMinLogBytes.value());
constexpr std::uint64_t kDefaultMaxCheckpointBytes = std::uint64_t{64} << 20;

format::Uuid random_uuid() {
  const std::uint64_t halves[2] = {os().random64(), os().random64()};
  format::Uuid uuid;
  static_assert(sizeof halves == sizeof uuid);
  std::memcpy(uuid.data(), halves, sizeof halves);
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0fU) | 0x40U);  // RFC 4122: version 4,
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3fU) | 0x80U);  // random
  return uuid;
}

std::uint64_t nonzero_random64() {
  std::uint64_t value = 0;
  while (value == 0) {
    value = os().random64();
  }
  return value;
}

Result<format::Superblock> plan_superblock(const LogConfig& config, std::uint64_t bytes,
                                           std::uint32_t block_bytes) {
  constexpr std::uint64_t kOverheadBlocks = format::kBlocksBeforeData + format::kBlocksAfterData;
  const std::uint64_t blocks = bytes / block_bytes;
  if (bytes < kMinLogBytes.value() || blocks < kOverheadBlocks + format::kMinDataBlocks) {
    const auto least =
        std::max(kMinLogBytes.value(), (kOverheadBlocks + format::kMinDataBlocks) * block_bytes);
    return Error{Errc::kInvalidArgument, 0, "the log is too small; the least size in bytes is",
                 least};
  }
  format::Superblock superblock{};
  superblock.uuid = random_uuid();
  superblock.block_bytes = block_bytes;
  superblock.data_bytes = (blocks - kOverheadBlocks) * block_bytes;
  superblock.file_bytes = blocks * block_bytes;
  const std::uint64_t quarter = round_down(superblock.data_bytes / 4, block_bytes);
  const std::uint64_t wanted = config.max_checkpoint == Bytes(0)
                                   ? std::min(quarter, kDefaultMaxCheckpointBytes)
                                   : round_down(config.max_checkpoint.value(), block_bytes);
  if (wanted < format::kMinCheckpointBlocks * block_bytes || wanted > quarter) {
    return Error{Errc::kInvalidArgument, 0,
                 "max_checkpoint must be from four blocks to a quarter of the log, in bytes",
                 quarter};
  }
  superblock.max_checkpoint_bytes = wanted;
  superblock.created_realtime_ns = os().realtime_ns();
  return superblock;
}

Status write_zeros_at(LogDevice& device, const AlignedBuffer& zeros, std::uint64_t offset) {
  if (auto status = device.write_piece(offset, zeros.data(), device.alignment()); !status) {
    return status;
  }
  return device.flush();
}

// A log that stands on the device goes before anything that it holds: else, should this be cut
// short, what is left of it would open. Its first superblock goes, then the copy, wherever a log of
// some block size would have it. From the smallest size on, each flushed: what is cleared before
// the log's own copy is padding in that one's block, or lies beyond the log.
Status clear_superblocks(LogDevice& device, const AlignedBuffer& zeros) {
  if (auto status = write_zeros_at(device, zeros, 0); !status) {
    return status;
  }
  for (std::uint64_t block = device.alignment(); block <= format::kMaxBlockBytes; block *= 2) {
    const std::uint64_t end = round_down(device.file_bytes(), block);
    if (auto status = write_zeros_at(device, zeros, end - block); !status) {
      return status;
    }
  }
  return {};
}

Status write_zeros(LogDevice& device, const AlignedBuffer& zeros, std::uint64_t file_bytes,
                   const LogConfig& config) {
  for (std::uint64_t offset = 0; offset < file_bytes; offset += zeros.bytes()) {
    if (config.progress) {
      config.progress(Bytes(offset), Bytes(file_bytes));
    }
    const auto bytes = std::min<std::uint64_t>(zeros.bytes(), file_bytes - offset);
    if (auto status = device.write_piece(offset, zeros.data(), bytes); !status) {
      return status;
    }
  }
  return {};
}

Status write_metadata(LogDevice& device, const format::Superblock& superblock,
                      const AlignedBuffer& block) {
  const Geometry geometry = geometry_of(superblock);
  format::StateSlot state{};
  state.uuid = superblock.uuid;
  state.generation = 1;
  state.incarnation = nonzero_random64();
  state.flags = format::kStateClean;
  std::memset(block.data(), 0, superblock.block_bytes);
  encode(state, block.data());
  for (int copy = 0; copy < 2; ++copy) {
    if (auto status =
            device.write_piece(geometry.state_offset(copy), block.data(), superblock.block_bytes);
        !status) {
      return status;
    }
  }
  // A file without a name gets it when it is stable; else nothing but this keeps the order.
  if (auto status = device.has_name() ? device.flush() : Status{}; !status) {
    return status;
  }
  std::memset(block.data(), 0, superblock.block_bytes);
  encode(superblock, block.data());
  for (int copy = 0; copy < 2; ++copy) {
    if (auto status = device.write_piece(geometry.superblock_offset(copy), block.data(),
                                         superblock.block_bytes);
        !status) {
      return status;
    }
  }
  return {};
}

// Refuses a device that holds anything at its ends, where file systems, partition tables and other
// logs have their marks.
Status check_empty(const LogDevice& device, const AlignedBuffer& buffer) {
  const std::uint64_t last = round_down(device.file_bytes() - kEndBytes, device.alignment());
  for (const std::uint64_t start : {std::uint64_t{0}, last}) {
    const auto bytes = start == 0 ? kEndBytes : device.file_bytes() - start;
    if (auto status = device.read(start, buffer.data(), bytes); !status) {
      return status;
    }
    const auto* end = buffer.data() + bytes;
    const auto* found = std::find_if(buffer.data(), buffer.data() + bytes,
                                     [](std::byte value) { return value != std::byte{0}; });
    if (found != end) {
      return Error{Errc::kExists, 0,
                   "the device holds data, and overwriting was not asked for; at byte",
                   start + static_cast<std::uint64_t>(found - buffer.data())};
    }
  }
  return {};
}

Result<std::unique_ptr<LogDevice>> open_empty(const std::string& path, const LogConfig& config) {
  const auto kind = LogDevice::kind_of(path);
  if (!kind) {
    return kind.error();
  }
  switch (*kind) {
    case LogDevice::PathKind::kNothing: return LogDevice::create(path, config.buffered);
    case LogDevice::PathKind::kBlockDevice: break;
    default: return Error{Errc::kExists, 0, "a log is never made over what is there", 0};
  }
  auto device = LogDevice::open(path, DeviceMode::kReadWrite, config.buffered);
  if (device && !(*device)->is_block_device()) {
    return Error{Errc::kExists, 0, "a log is never made over what is there", 0};
  }
  return device;
}

// A block device is taken whole: its end must be found without knowing of the log.
Result<std::uint64_t> log_bytes(const LogDevice& device, const LogConfig& config) {
  if (!device.is_block_device()) {
    return config.size.value();
  }
  const std::uint64_t bytes = device.file_bytes();
  const std::uint32_t block = device.alignment();
  if (config.size != Bytes(0) && config.size.value() / block != bytes / block) {
    return Error{Errc::kInvalidArgument, 0, "a block device is taken whole: size 0, or bytes",
                 bytes};
  }
  return bytes;
}

Result<LogInfo> make_log(const std::string& path, const LogConfig& config) {
  const auto pool = try_default_pool();
  if (!pool) {
    return pool.error();
  }
  auto device = open_empty(path, config);
  if (!device) {
    return device.error();
  }
  const auto bytes = log_bytes(**device, config);
  if (!bytes) {
    return bytes.error();
  }
  const auto superblock = plan_superblock(config, *bytes, (*device)->alignment());
  if (!superblock) {
    return superblock.error();
  }
  auto buffer = AlignedBuffer::allocate(**pool, kZeroBytes, "log creation");
  if (!buffer) {
    return buffer.error();
  }
  if ((*device)->is_block_device()) {
    if (auto status = config.overwrite ? clear_superblocks(**device, *buffer)
                                       : check_empty(**device, *buffer);
        !status) {
      return status.error();
    }
  } else if (auto status = (*device)->allocate(superblock->file_bytes); !status) {
    return status.error();
  }
  if (auto status = write_zeros(**device, *buffer, superblock->file_bytes, config); !status) {
    return status.error();
  }
  if (auto status = write_metadata(**device, *superblock, *buffer); !status) {
    return status.error();
  }
  // Read back before it has its name: nothing may fail once it has.
  auto file = LogFile::of(std::move(*device), std::move(*buffer));
  if (!file) {
    return file.error();
  }
  const LogInfo info = file->info();
  if (info.valid_superblocks != 2 || info.valid_states != 2) {
    return Error{Errc::kIo, 0, "a copy of what the new log keeps twice cannot be read back", 0};
  }
  if (auto status = file->device().publish(); !status) {
    return status.error();
  }
  return info;
}

}  // namespace

Result<LogInfo> create_log(const std::string& path, const LogConfig& config) {
  return no_throw("create a log", [&] { return make_log(path, config); });
}

}  // namespace keel
