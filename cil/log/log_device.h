// LogDevice: the one open file of a log. Aligned reads and writes, the flush, the error latch, and
// who may use it.
//
// I1 The first write or flush that fails is latched; from then on write() and flush() return that
//    error without touching the file. Nothing is retried, but for a short write, which is finished
//    once; what that returns is latched. (A second fsync after a failed one lies: pages were marked
//    clean.)
// I2 One process, one owner: a lock on the open file description, and a page that a forked child
//    finds empty (it inherits the lock, not the log).
// I3 Offsets, lengths and addresses of direct I/O are multiples of alignment().
//
// Threads: read() from any; write() and flush() from one at a time.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "keel/base/fork_guard.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"

namespace keel {

enum class DeviceMode : std::uint8_t { kReadOnly, kReadWrite };

class LogDevice : public MetadataObject {
 public:
  // Opens an existing regular file, without following a symbolic link, and locks it (shared for
  // kReadOnly). `buffered` goes through the page cache instead of O_DIRECT.
  // Errors: kNotFound, kPermission, kNotALog (not a regular file), kUnsupported (no O_DIRECT),
  // kBusy.
  [[nodiscard]] static Result<std::unique_ptr<LogDevice>> open(const std::string& path,
                                                               DeviceMode mode, bool buffered);

  // Makes an empty file that is to become `path`, which must not exist: allocate() gives it its
  // space. The name appears only with publish(), or, on a file system without O_TMPFILE, at once;
  // without publish() the destructor leaves nothing behind.
  // Errors: kExists, kUnsupported, kPermission, kNotFound.
  [[nodiscard]] static Result<std::unique_ptr<LogDevice>> create(const std::string& path,
                                                                 bool buffered);

  ~LogDevice();
  LogDevice(const LogDevice&) = delete;
  LogDevice& operator=(const LogDevice&) = delete;

  // For create(): takes space from the file system for the whole file. Errors: kNoSpace.
  [[nodiscard]] Status allocate(std::uint64_t bytes);
  // For create(): syncs the file, gives it its name, syncs the directory. Errors: kExists, kIo.
  [[nodiscard]] Status publish();

  // Reads exactly `bytes`; past the end of the file is an error.
  [[nodiscard]] Status read(std::uint64_t offset, void* buffer, std::size_t bytes) const;
  // Writes the parts one after the other at `offset`; consumes (changes) them. No allocation.
  [[nodiscard]] Status write(std::uint64_t offset, struct iovec* parts, int count);
  // Makes all completed writes stable. No allocation.
  [[nodiscard]] Status flush();

  [[nodiscard]] std::uint64_t file_bytes() const { return file_bytes_; }
  [[nodiscard]] std::uint32_t alignment() const { return alignment_; }
  [[nodiscard]] bool buffered() const { return buffered_; }
  [[nodiscard]] bool copy_on_write() const { return copy_on_write_; }
  // True in the process that opened it, false in a forked child.
  [[nodiscard]] bool owned_by_this_process() const { return fork_guard_.same_process(); }

 private:
  [[nodiscard]] static Result<std::unique_ptr<LogDevice>> make(const std::string& path,
                                                               bool buffered);
  LogDevice(std::string path, bool buffered) : path_(std::move(path)), buffered_(buffered) {}

  [[nodiscard]] Status open_named(int flags);
  [[nodiscard]] Status open_unnamed(int flags);
  [[nodiscard]] Status check_kind();
  [[nodiscard]] Status find_alignment();
  [[nodiscard]] Status latch(const Error& error) KEEL_EXCLUDES(mutex_);
  [[nodiscard]] Status latched() const KEEL_EXCLUDES(mutex_);

  const std::string path_;
  const bool buffered_;
  int fd_ = -1;
  bool unnamed_ = false;      // O_TMPFILE: publish() links it
  bool unpublished_ = false;  // named by create(), to be removed if publish() does not come
  bool copy_on_write_ = false;
  std::uint32_t alignment_ = 0;
  std::uint64_t file_bytes_ = 0;
  ForkGuard fork_guard_;

  // Acquire pairs with the release in latch(): who sees it set sees error_.
  std::atomic<bool> failed_{false};
  mutable Mutex mutex_{LockRank::kLogDevice};
  Error error_ KEEL_GUARDED_BY(mutex_){};
};

}  // namespace keel
