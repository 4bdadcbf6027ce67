// Names, descriptors, locks and attributes of the simulated disk: each call answers as Linux does,
// down to its mistakes.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "keel/base/check.h"
#include "support/sim_disk.h"

namespace keel {
namespace {

constexpr blksize_t kBlockBytes = 4096;

bool is_directory(std::string_view path) { return path == "/sim" || path == "/sim/"; }

bool is_simulated(std::string_view path) {
  return is_directory(path) || path.substr(0, 5) == "/sim/";
}

// The name in the directory; empty if it cannot be one (there are no directories below).
std::string_view file_name(std::string_view path) {
  const std::string_view name = path.substr(5);
  return name.find('/') == std::string_view::npos ? name : std::string_view();
}

}  // namespace

// `file` is null for the directory.
int SimDisk::find(int fd, SimIo& io, Descriptor& descriptor, File*& file) {
  const auto entry = descriptors_.find(fd);
  if (entry == descriptors_.end()) {
    return fd < first_live_descriptor_ ? -EIO : -EBADF;
  }
  descriptor = entry->second;
  file = descriptor.file == 0 ? nullptr : &files_.at(descriptor.file);
  io.path = file == nullptr ? "/sim" : file->path;
  return 0;
}

bool SimDisk::is_virtual(int fd) const {
  if (fd < kFirstDescriptor) {
    return false;
  }
  KEEL_CHECK(fd >= first_descriptor_ && fd - first_descriptor_ < kDescriptors,
             "a descriptor of another simulated disk", static_cast<std::uint64_t>(fd),
             static_cast<std::uint64_t>(first_descriptor_));
  return true;
}

int SimDisk::add_descriptor(std::uint64_t file, int flags) {
  KEEL_CHECK(descriptors_.size() < kDescriptors, "more files open than a disk has numbers for");
  do {
    if (next_descriptor_ - first_descriptor_ == kDescriptors) {
      next_descriptor_ = first_descriptor_;
      first_live_descriptor_ = first_descriptor_;
    }
  } while (!descriptors_.try_emplace(next_descriptor_++, Descriptor{file, flags}).second);
  return next_descriptor_ - 1;
}

std::uint64_t SimDisk::add_file(mode_t mode) {
  File file;
  file.disk.mode = mode;
  file.disk.uid = ::geteuid();
  files_.emplace(next_file_, std::move(file));
  return next_file_++;
}

void SimDisk::change_name(std::string_view name, std::uint64_t file) {
  if (file == 0) {
    names_.erase(std::string(name));
  } else {
    names_[std::string(name)] = file;
    files_.at(file).path = "/sim/" + std::string(name);
  }
  pending_names_.push_back({std::string(name), file});
}

int SimDisk::open_file(std::string_view path, int flags, mode_t mode, SimIo& io) {
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  const bool writes = Descriptor{0, flags}.may_write();
  const bool refused = (flags & O_DIRECT) != 0 && !options_.direct_io;
  if (is_directory(path)) {
    if ((flags & O_TMPFILE) == O_TMPFILE) {
      if (!writes || refused) {
        return -EINVAL;
      }
      io.path.clear();
      return add_descriptor(add_file(mode), flags);
    }
    return writes || (flags & O_CREAT) != 0 ? -EISDIR : add_descriptor(0, flags);
  }
  const std::string_view name = file_name(path);
  auto entry = names_.find(name);
  if (entry == names_.end()) {
    if (name.empty() || (flags & O_CREAT) == 0) {
      return -ENOENT;
    }
    change_name(name, add_file(mode));
    entry = names_.find(name);
  } else if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
    return -EEXIST;
  } else if ((flags & O_DIRECTORY) != 0) {
    return -ENOTDIR;
  }
  if ((flags & O_EXCL) != 0 && is_claimed(files_.at(entry->second), entry->second)) {
    return -EBUSY;
  }
  if (refused) {
    return -EINVAL;  // Linux creates first and refuses then: the name stays
  }
  if ((flags & O_TRUNC) != 0 && writes) {
    land_resize(files_.at(entry->second), 0);
  }
  return add_descriptor(entry->second, flags);
}

int SimDisk::open(const char* path, int flags, mode_t mode) {
  if (!is_simulated(path)) {
    return Os::open(path, flags, mode);
  }
  SimIo io{.op = SimOp::kOpen, .path = path};
  {
    MutexLock lock(mutex_);
    record(io, open_file(path, flags, mode, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::close(int fd) {
  if (!is_virtual(fd)) {
    return Os::close(fd);
  }
  MutexLock lock(mutex_);
  const auto entry = descriptors_.find(fd);
  if (entry == descriptors_.end()) {
    return fd < first_live_descriptor_ ? 0 : -EBADF;
  }
  if (entry->second.file != 0) {
    files_.at(entry->second.file).locks.erase(fd);
  }
  descriptors_.erase(entry);
  drop_unreachable();
  return 0;
}

int SimDisk::lock_file(int fd, bool exclusive, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (file == nullptr || !(exclusive ? descriptor.may_write() : descriptor.may_read())) {
    return -EBADF;
  }
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  for (const auto& held : file->locks) {
    if (held.first != fd && (exclusive || held.second)) {
      return -EAGAIN;
    }
  }
  file->locks[fd] = exclusive;
  return 0;
}

int SimDisk::lock_call(int fd, bool exclusive) {
  SimIo io{.op = SimOp::kLock};
  {
    MutexLock lock(mutex_);
    record(io, lock_file(fd, exclusive, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::lock_exclusive(int fd) {
  return is_virtual(fd) ? lock_call(fd, true) : Os::lock_exclusive(fd);
}

int SimDisk::lock_shared(int fd) {
  return is_virtual(fd) ? lock_call(fd, false) : Os::lock_shared(fd);
}

int SimDisk::link_file(int fd, std::string_view path, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  io.path = path;
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  const std::string_view name = file_name(path);
  if (names_.find(name) != names_.end() || is_directory(path)) {
    return -EEXIST;
  }
  const bool unnamed = file != nullptr && (descriptor.flags & O_TMPFILE) == O_TMPFILE &&
                       (descriptor.flags & O_EXCL) == 0;
  if (name.empty() || !unnamed) {
    return -ENOENT;
  }
  change_name(name, descriptor.file);
  return 0;
}

int SimDisk::link_unnamed(int fd, const char* path) {
  if (!is_virtual(fd) && !is_simulated(path)) {
    return Os::link_unnamed(fd, path);
  }
  if (!is_virtual(fd) || !is_simulated(path)) {
    return -EXDEV;
  }
  SimIo io{.op = SimOp::kLink, .path = path};
  {
    MutexLock lock(mutex_);
    record(io, link_file(fd, path, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::unlink_name(std::string_view path, SimIo& io) {
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  if (is_directory(path)) {
    return -EISDIR;
  }
  const std::string_view name = file_name(path);
  if (names_.find(name) == names_.end()) {
    return -ENOENT;
  }
  change_name(name, 0);
  drop_unreachable();
  return 0;
}

int SimDisk::unlink(const char* path) {
  if (!is_simulated(path)) {
    return Os::unlink(path);
  }
  SimIo io{.op = SimOp::kUnlink, .path = path};
  {
    MutexLock lock(mutex_);
    record(io, unlink_name(path, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::stat_file(int fd, struct stat* out, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  *out = {};
  out->st_dev = 0x51;
  out->st_ino = descriptor.file + 1;
  out->st_blksize = kBlockBytes;
  if (file == nullptr) {
    out->st_mode = S_IFDIR | 0700;
    out->st_nlink = 2;
    out->st_uid = ::geteuid();
    return 0;
  }
  out->st_mode = S_IFREG | file->disk.mode;
  out->st_uid = file->disk.uid;
  out->st_nlink =
      static_cast<nlink_t>(std::count_if(names_.begin(), names_.end(), [&](const auto& entry) {
        return entry.second == descriptor.file;
      }));
  if (file->disk.block_device) {
    out->st_mode = S_IFBLK | file->disk.mode;
    return 0;
  }
  out->st_size = static_cast<off_t>(file->cached.size());
  out->st_blocks = static_cast<blkcnt_t>((file->cached.size() + 511) / 512);
  return 0;
}

int SimDisk::fstat(int fd, struct stat* out) {
  if (!is_virtual(fd)) {
    return Os::fstat(fd, out);
  }
  SimIo io{.op = SimOp::kStat};
  {
    MutexLock lock(mutex_);
    record(io, stat_file(fd, out, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::clear_nonblock(int fd) { return is_virtual(fd) ? 0 : Os::clear_nonblock(fd); }

int SimDisk::fchmod(int fd, mode_t mode) {
  if (!is_virtual(fd)) {
    return Os::fchmod(fd, mode);
  }
  SimIo io{.op = SimOp::kStat};
  {
    MutexLock lock(mutex_);
    Descriptor descriptor;
    File* file = nullptr;
    int result = find(fd, io, descriptor, file);
    result = result != 0 ? result : fail_if_asked(io);
    if (result == 0 && file != nullptr) {
      file->disk.mode = mode;
    }
    record(io, result);
  }
  return static_cast<int>(announce(io));
}

int SimDisk::statx(int fd, unsigned mask, struct statx* out) {
  if (!is_virtual(fd)) {
    return Os::statx(fd, mask, out);
  }
  struct stat status {};
  if (const int failed = fstat(fd, &status); failed != 0) {
    return failed;
  }
  *out = {};
  out->stx_mask = STATX_BASIC_STATS;
  out->stx_mode = static_cast<std::uint16_t>(status.st_mode);
  out->stx_ino = status.st_ino;
  out->stx_nlink = static_cast<std::uint32_t>(status.st_nlink);
  out->stx_uid = status.st_uid;
  out->stx_size = static_cast<std::uint64_t>(status.st_size);
  out->stx_blocks = static_cast<std::uint64_t>(status.st_blocks);
  out->stx_blksize = static_cast<std::uint32_t>(status.st_blksize);
  if ((mask & STATX_DIOALIGN) != 0 && options_.statx_says_align) {
    out->stx_mask |= STATX_DIOALIGN;
    out->stx_dio_mem_align = options_.direct_io ? options_.direct_align : 0;
    out->stx_dio_offset_align = out->stx_dio_mem_align;
  }
  return 0;
}

int SimDisk::tell_copy_on_write(int fd, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  return options_.copy_on_write && !(file != nullptr && file->disk.in_place) ? 1 : 0;
}

int SimDisk::is_copy_on_write(int fd) {
  if (!is_virtual(fd)) {
    return Os::is_copy_on_write(fd);
  }
  SimIo io{.op = SimOp::kStat};
  {
    MutexLock lock(mutex_);
    record(io, tell_copy_on_write(fd, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::set_in_place(int fd, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  if (!options_.copy_on_write) {
    return -EOPNOTSUPP;
  }
  if (file == nullptr || file->cached.size() != 0) {
    return -EINVAL;
  }
  file->disk.in_place = true;
  return 0;
}

int SimDisk::set_no_copy_on_write(int fd) {
  if (!is_virtual(fd)) {
    return Os::set_no_copy_on_write(fd);
  }
  SimIo io{.op = SimOp::kStat};
  {
    MutexLock lock(mutex_);
    record(io, set_in_place(fd, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::resize_file(int fd, std::uint64_t bytes, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (file == nullptr || !descriptor.may_write() || file->disk.block_device ||
      bytes > SimDisk::kMaxFileBytes) {
    return -EINVAL;
  }
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  land_resize(*file, bytes);
  return 0;
}

int SimDisk::ftruncate(int fd, std::uint64_t bytes) {
  if (!is_virtual(fd)) {
    return Os::ftruncate(fd, bytes);
  }
  SimIo io{.op = SimOp::kResize, .bytes = bytes};
  {
    MutexLock lock(mutex_);
    record(io, resize_file(fd, bytes, io));
  }
  return static_cast<int>(announce(io));
}

// Space is never short unless a fault says so, so only size and zeroing are left to do.
int SimDisk::allocate(int fd, int mode, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (file == nullptr || !descriptor.may_write()) {
    return file == nullptr ? -ENODEV : -EBADF;
  }
  const bool keeps_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int kind = mode & ~FALLOC_FL_KEEP_SIZE;
  if (kind != 0 && kind != FALLOC_FL_ZERO_RANGE && kind != FALLOC_FL_PUNCH_HOLE) {
    return -EOPNOTSUPP;
  }
  if ((kind == FALLOC_FL_PUNCH_HOLE && !keeps_size) || (kind == 0 && file->disk.block_device)) {
    return -EOPNOTSUPP;
  }
  if (io.bytes == 0 || io.offset > SimDisk::kMaxFileBytes ||
      io.bytes > SimDisk::kMaxFileBytes - io.offset) {
    return -EINVAL;
  }
  if (const int failed = fail_if_asked(io); failed != 0) {
    return failed;
  }
  const std::uint64_t end = io.offset + io.bytes;
  if (!keeps_size && end > file->cached.size()) {
    land_resize(*file, end);
  }
  if (kind != 0 && io.offset < file->cached.size()) {
    land(*file, io.offset, SimContent(std::min(end, file->cached.size()) - io.offset), false);
  }
  return 0;
}

// As a file system that does not tell holes from data.
std::int64_t SimDisk::lseek(int fd, std::uint64_t offset, int whence) {
  return is_virtual(fd) ? -EINVAL : Os::lseek(fd, offset, whence);
}

int SimDisk::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) {
  if (!is_virtual(fd)) {
    return Os::fallocate(fd, mode, offset, bytes);
  }
  SimIo io{.op = SimOp::kAllocate, .offset = offset, .bytes = bytes};
  {
    MutexLock lock(mutex_);
    record(io, allocate(fd, mode, io));
  }
  return static_cast<int>(announce(io));
}

}  // namespace keel
