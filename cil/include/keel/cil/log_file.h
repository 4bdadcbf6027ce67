// Making a log file, and what a log file says of itself.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

struct LogConfig {
  // Of the whole file; rounded down to whole blocks. A block device is taken whole: 0, or its size.
  Bytes size{std::uint64_t{256} << 20};
  Bytes max_checkpoint{};  // 0: a quarter of the log, at most 64 MiB
  bool buffered = false;   // through the page cache, where there is no direct I/O
  bool overwrite = false;  // a block device that holds something; never a file
  // Of the writing; may be empty. What it throws ends the making, and passes.
  std::function<void(Bytes done, Bytes most)> progress{};
};

// The smallest file that create_log() makes.
inline constexpr Bytes kMinLogBytes{std::uint64_t{1} << 20};

struct LogInfo {
  std::array<std::uint8_t, 16> uuid{};
  std::uint32_t format_version = 0;
  std::uint32_t block_bytes = 0;
  Bytes file{};
  Bytes data{};  // log size: LSN x stands at x mod this
  Bytes max_checkpoint{};
  std::uint64_t created_realtime_ns = 0;
  std::uint32_t alignment = 0;  // what direct I/O on this file wants
  bool buffered = false;
  // Rewriting a block may need new space: the promise that a commit never meets a full disk is
  // withdrawn on such a file.
  bool copy_on_write = false;
  // Why Journal::open() refuses it: who else owns it or may write to it; static storage, "" if
  // nobody. Reading it is not refused.
  const char* untrusted = "";
  int valid_superblocks = 0;  // of 2 copies
  int valid_states = 0;       // of 2 slots
  std::uint64_t state_generation = 0;
  std::uint64_t incarnation = 0;
  Lsn tail{};          // recovery reads from here
  Lsn stable{};        // as recorded; the log may be stable further
  bool clean = false;  // closed in order: the log ends at `stable`
};

// Makes a log. As a file of mode 0600, whatever the umask: allocates it, writes all of it once,
// syncs it and its directory; nothing appears at `path` before it is whole, where the file system
// has unnamed files (O_TMPFILE). On a block device
// (`path` is its node, no symbolic link): writes all of it once; after a failure or a crash it
// holds a whole log or none. A log that it held is then gone, or whole if nothing else was written.
// Errors: kExists (there is a file; or the first or last 256 KiB of the device are not all zero,
// and config.overwrite is not set), kInvalidArgument (too small; not the device's size), kBusy (the
// device is mounted, part of another, or in use as a log), kNoSpace, kUnsupported (no direct I/O),
// kPermission, kNotFound, kIo, kUntrusted (as of Journal::open()), those of try_default_pool().
[[nodiscard]] Result<LogInfo> create_log(const std::string& path, const LogConfig& config);

// Reads what the log says of itself; changes nothing.
// Errors: kNotFound, kPermission, kNotALog, kBadVersion, kDamaged, kBusy, kUnsupported, kIo (no
// good copy of what is kept twice, and one that cannot be read), those of try_default_pool().
[[nodiscard]] Result<LogInfo> read_log_info(const std::string& path, bool buffered = false);

// The uuid as 8-4-4-4-12 hex digits.
[[nodiscard]] std::string to_string(const std::array<std::uint8_t, 16>& uuid);

}  // namespace keel
