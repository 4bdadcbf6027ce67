// LogDevice: the one open file of a log, a regular one or a block device. Aligned reads and writes,
// the flush, the error latch, and who may use it.
//
// I1 The first write or flush that fails, of any thread's, is latched. Calls that begin after it
//    return that error without touching the file; a flush under way then returns it too. Nothing is
//    retried, but for a short write, which is finished once (write_progress.h). A second fsync
//    after a failed one lies: pages were marked clean.
// I2 One process, one owner: a lock on the open file description, and a page that a forked child
//    finds empty (it inherits the lock, not the log). A block device is also claimed from the
//    kernel.
// I3 Offsets and lengths of direct I/O are multiples of alignment(), which is no less than a
//    physical sector; addresses are multiples of it or of a page.
//
// Threads: any, all calls at once, but for opening and destroying. Writes that overlap in place
// have no order.
// Locks: flush turns (buffered files only), held over the calls that flush; the latch is a leaf
// beneath them.
#pragma once

#include <sys/stat.h>
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
  // Opens an existing regular file or block device, without following a symbolic link, and locks it
  // (shared for kReadOnly). `buffered` goes through the page cache instead of O_DIRECT.
  // Errors: kNotFound, kPermission, kNotALog (neither of the two, or not one name), kUnsupported
  // (no O_DIRECT), kBusy (locked; for kReadWrite, a device that is mounted or otherwise claimed),
  // kUntrusted (kReadWrite: log_trust.h). What is refused was not changed, nor even opened if it is
  // neither of the two (unless it took the path's place while this was looked at).
  [[nodiscard]] static Result<std::unique_ptr<LogDevice>> open(const std::string& path,
                                                               DeviceMode mode, bool buffered);

  // Makes an empty file that is to become `path`, which must not exist: allocate() gives it its
  // space. The name appears only with publish(), or, on a file system without O_TMPFILE, at once;
  // without publish() the destructor leaves nothing behind. Its mode is 0600, whatever the umask.
  // It is locked: nobody opens it before it is whole, or while its name may go again.
  // Errors: kExists, kUnsupported, kPermission, kNotFound, kUntrusted (a file system that makes it
  // somebody else's).
  [[nodiscard]] static Result<std::unique_ptr<LogDevice>> create(const std::string& path,
                                                                 bool buffered);

  ~LogDevice();
  LogDevice(const LogDevice&) = delete;
  LogDevice& operator=(const LogDevice&) = delete;

  enum class PathKind : std::uint8_t { kNothing, kBlockDevice, kOther };
  // What stands at the path now. Errors: kIo, kPermission, kSystem: it cannot be looked at.
  [[nodiscard]] static Result<PathKind> kind_of(const std::string& path);

  // For create(): takes space from the file system for the whole file. Errors: kNoSpace.
  [[nodiscard]] Status allocate(std::uint64_t bytes);
  // For create(): syncs the file, gives it its name, syncs the directory; of a block device it
  // syncs the content, which is all there is to do. Errors: kExists, kIo.
  [[nodiscard]] Status publish();

  // Reads exactly `bytes`; past the end of the file is an error.
  [[nodiscard]] Status read(std::uint64_t offset, void* buffer, std::size_t bytes) const;
  // A part of the file: [from, to).
  struct Extent {
    std::uint64_t from = 0;
    std::uint64_t to = 0;
  };
  // The first part at or after `offset` that may hold anything but zeros: what lies before it is a
  // hole. Empty, at the file's end: there is none. A file system that does not tell, and a block
  // device: all is data.
  [[nodiscard]] Extent next_data(std::uint64_t offset) const;
  // Writes the parts one after the other at `offset`; consumes (changes) them. No allocation.
  [[nodiscard]] Status write(std::uint64_t offset, struct iovec* parts, int count);
  // As write(), of one piece.
  [[nodiscard]] Status write_piece(std::uint64_t offset, std::byte* data, std::size_t bytes) {
    struct iovec part {
      data, bytes
    };
    return write(offset, &part, 1);
  }
  // As write(), and these parts, no others, are stable on return. No allocation.
  [[nodiscard]] Status write_durable(std::uint64_t offset, struct iovec* parts, int count);
  // Makes stable every write that returned before this call. No allocation.
  [[nodiscard]] Status flush();

  // What is read from now on is read from the disk, whatever the page cache has. For buffered logs,
  // after a flush: a page that an earlier process could not write back counts as written, and only
  // memory has it.
  void forget_cached() const;

  // The latched error, if there is one.
  [[nodiscard]] Status status() const KEEL_EXCLUDES(mutex_);
  // For who writes by other calls (WriteQueue): latches the error unless one is; returns the
  // latched.
  [[nodiscard]] Status fail(const Error& error) KEEL_EXCLUDES(mutex_);
  // Aborts unless this is what direct I/O takes (I3).
  void check_aligned(std::uint64_t offset, const struct iovec* parts, int count) const;
  [[nodiscard]] int descriptor() const { return fd_; }

  [[nodiscard]] std::uint64_t file_bytes() const { return file_bytes_; }
  [[nodiscard]] std::uint32_t alignment() const { return alignment_; }
  [[nodiscard]] bool is_block_device() const { return block_device_; }
  // Not of a file that create() has made without one; before publish().
  [[nodiscard]] bool has_name() const { return !unnamed_; }
  [[nodiscard]] bool buffered() const { return buffered_; }
  [[nodiscard]] bool copy_on_write() const { return copy_on_write_; }
  // Why it would not have been opened for writing; static storage, "" if it would.
  [[nodiscard]] const char* untrusted() const { return untrusted_; }
  // True in the process that opened it, false in a forked child.
  [[nodiscard]] bool owned_by_this_process() const { return fork_guard_.same_process(); }

 private:
  // Whether the file system knows RWF_DSYNC: settled by the first write that has it, for good.
  enum class Dsync : std::uint8_t { kUntried, kKnown, kUnknown };

  [[nodiscard]] static Result<std::unique_ptr<LogDevice>> make(const std::string& path,
                                                               bool buffered);
  LogDevice(std::string path, bool buffered) : path_(std::move(path)), buffered_(buffered) {}

  [[nodiscard]] Status open_named(int flags);
  [[nodiscard]] Status open_unnamed(int flags);
  [[nodiscard]] Status open_existing(bool writing);
  [[nodiscard]] Status check_file(bool writing, struct stat& found);
  [[nodiscard]] Status take_lock(bool writing);
  [[nodiscard]] Status make_private();
  [[nodiscard]] Status take_block_device(std::uint64_t number, bool writing);
  [[nodiscard]] Status find_alignment();
  [[nodiscard]] Status write_parts(std::uint64_t offset, struct iovec* parts, int count, int flags);
  [[nodiscard]] Status write_through(std::uint64_t offset, struct iovec* parts, int count);
  [[nodiscard]] Dsync settle_dsync(Dsync found);
  [[nodiscard]] Status flush_file();

  const std::string path_;
  const bool buffered_;
  int fd_ = -1;
  bool unnamed_ = false;      // O_TMPFILE: publish() links it
  bool unpublished_ = false;  // named by create(), to be removed if publish() does not come
  bool copy_on_write_ = false;
  const char* untrusted_ = "";
  bool locked_ = false;
  bool block_device_ = false;
  std::uint32_t alignment_ = 0;
  std::uint64_t file_bytes_ = 0;
  ForkGuard fork_guard_;

  std::atomic<Dsync> dsync_{Dsync::kUntried};  // relaxed: it orders nothing
  Mutex flush_mutex_{LockRank::kLogFlush};

  // Acquire pairs with the release in fail(): who sees it set sees error_.
  std::atomic<bool> failed_{false};
  mutable Mutex mutex_{LockRank::kLogDevice};
  Error error_ KEEL_GUARDED_BY(mutex_){};
};

}  // namespace keel
