#include "recovered_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <utility>

#include "interrupt.h"
#include "log_text.h"
#include "output.h"

namespace keel::tools {
namespace {

namespace fs = std::filesystem;

// For the path given by the user: the line says what failed, and why.
[[noreturn]] void fail(const std::string& path, const char* act, int sys_errno) {
  throw Failure(path, system_error(sys_errno, act));
}

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

// One that is the root of a mount, or of what looks like one (a subvolume of btrfs).
bool is_mount_point(const std::string& path) {
  struct stat found {};
  struct stat above {};
  struct statx more {};
  return (::stat(path.c_str(), &found) == 0 && ::stat((path + "/..").c_str(), &above) == 0 &&
          found.st_dev != above.st_dev) ||
         (::statx(AT_FDCWD, path.c_str(), 0, 0, &more) == 0 &&
          (more.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0);  // A bind mount of the same device.
}

// A directory that is made beside it can take its place.
void check_replaceable(const std::string& path) {
  const std::string name = fs::path(path).filename();
  if (name.empty() || name == "." || name == "..") {
    throw Failure(kUnfit, path, "the directory must be named as the one above it knows it",
                  "no name");
  }
  if (is_mount_point(path)) {
    throw Failure(kUnfit, path, "a mount point: name a directory in it", "mount point");
  }
}

void check_absent_or_empty(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::none) {
    fail(path, "look at the directory", error.value());
  }
  if (status.type() == fs::file_type::not_found) {
    return;
  }
  if (status.type() != fs::file_type::directory) {
    throw Failure(kUnfit, path, "there is something there that is no directory", "exists");
  }
  const bool empty = fs::is_empty(path, error);
  if (error) {
    fail(path, "look into the directory", error.value());
  }
  if (!empty) {
    throw Failure(kUnfit, path, "the directory is not empty", "exists");
  }
}

// 0 or an errno.
int write_all(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote <= 0) {
      return wrote < 0 ? errno : EIO;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    offset += static_cast<std::uint64_t>(wrote);
  }
  return 0;
}

int write_region(int fd, const RecoveredRegion& region, std::uint64_t offset) {
  const int error = write_all(fd, region.bulk, offset);
  return error != 0 ? error : write_all(fd, region.rest, offset + region.bulk.size());
}

void append_hex(std::string& text, std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    text += kDigits[value >> 4U];
    text += kDigits[value & 0x0fU];
  }
}

}  // namespace

RecoveredDirectory::RecoveredDirectory(const std::string& path) : path_(without_slashes(path)) {
  check_absent_or_empty(path_);
  check_replaceable(path_);
  try {
    open_directories();
  } catch (...) {
    leave();
    throw;
  }
}

RecoveredDirectory::~RecoveredDirectory() { leave(); }

// All that publish() needs is had before anything is written.
void RecoveredDirectory::open_directories() {
  const std::string parent = fs::path(path_).parent_path().string();
  parent_ = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent_ < 0) {
    fail(path_, "open the directory above", errno);
  }
  std::string name = path_ + ".keel-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) {
    fail(path_, "make a directory beside it", errno);
  }
  building_ = name;
  directory_ = ::open(building_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) {
    fail(path_, "open the directory beside it", errno);
  }
}

void RecoveredDirectory::leave() {
  if (other_ != nullptr) {
    (void)std::fclose(other_);
  }
  for (const int fd : {directory_, parent_}) {
    if (fd >= 0) {
      (void)::close(fd);
    }
  }
  if (!building_.empty()) {
    std::error_code ignored;
    fs::remove_all(building_, ignored);
  }
}

std::string RecoveredDirectory::name_of(std::uint64_t id) { return hex(id); }

void RecoveredDirectory::add(const RecoveredCheckpoint& checkpoint) {
  for (const RecoveredItem& item : checkpoint.items) {
    Interrupt::check();
    if (const auto object = RecoveredObject::from(item)) {
      apply(*object);
    } else {
      add_other(checkpoint, item);
    }
  }
}

// The one place that knows what an object's item does to the object.
void RecoveredDirectory::apply(const RecoveredObject& object) {
  const std::string name = name_of(object.id);
  const std::string partial_name = name + kPartial;
  const bool was_whole = exists(name);
  if (object.partial && was_whole) {
    write_ranges(name, object);
    return;
  }
  const bool was_partial = partial_.count(object.id) != 0;
  if (object.partial) {
    write_ranges(partial_name, object);
    note_ranges(object);
  } else {
    remove(partial_name);
    partial_.erase(object.id);
    object.erased ? remove(name) : write_whole(name, object.bytes);
  }
  objects_ -= was_whole || was_partial ? 1U : 0U;
  objects_ += object.erased ? 0U : 1U;
}

bool RecoveredDirectory::exists(const std::string& name) const {
  return ::faccessat(directory_, name.c_str(), F_OK, 0) == 0;
}

void RecoveredDirectory::remove(const std::string& name) {
  if (::unlinkat(directory_, name.c_str(), 0) != 0 && errno != ENOENT) {
    fail(path_, "remove an object's file", errno);
  }
}

int RecoveredDirectory::open_file(const std::string& name, int more_flags) {
  const int fd =
      ::openat(directory_, name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | more_flags, 0600);
  if (fd < 0) {
    fail(path_, "make an object's file", errno);
  }
  return fd;
}

void RecoveredDirectory::close_file(int fd, int error) {
  if (::close(fd) != 0 && error == 0) {
    error = errno;
  }
  if (error != 0) {
    fail(path_, "write an object's file", error);
  }
}

void RecoveredDirectory::write_whole(const std::string& name, const RecoveredRegion& bytes) {
  const int fd = open_file(name, O_TRUNC);
  close_file(fd, write_region(fd, bytes, 0));
}

void RecoveredDirectory::write_ranges(const std::string& name, const RecoveredObject& object) {
  const int fd = open_file(name, 0);
  int error = ::ftruncate(fd, static_cast<off_t>(object.size_bytes)) == 0 ? 0 : errno;
  for (std::size_t i = 0; error == 0 && i < object.ranges.count(); ++i) {
    error = write_region(fd, object.ranges.bytes(i), object.ranges.offset(i));
  }
  close_file(fd, error);
}

void RecoveredDirectory::note_ranges(const RecoveredObject& object) {
  RangeList& known = partial_[object.id];
  known.resize(object.size_bytes);
  for (std::size_t i = 0; i < object.ranges.count(); ++i) {
    known.add(object.ranges.offset(i), object.ranges.bytes(i).size_bytes());
  }
}

void RecoveredDirectory::list_ranges() {
  for (auto& [id, known] : partial_) {
    Interrupt::check();
    const std::string text = known.text();
    const int fd = open_file(name_of(id) + kRanges, O_EXCL);
    close_file(fd, write_all(fd, std::as_bytes(std::span(text)), 0));
  }
}

void RecoveredDirectory::add_other(const RecoveredCheckpoint& checkpoint,
                                   const RecoveredItem& item) {
  if (other_ == nullptr) {
    other_ = std::fopen((building_ + "/" + kOtherItems).c_str(), "wxe");
    if (other_ == nullptr) {
      fail(path_, "make the file of other items", errno);
    }
  }
  // Written piece by piece: a region may be as large as a checkpoint.
  const auto write = [this](const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), other_) != text.size()) {
      fail(path_, "write the file of other items", errno);
    }
  };
  write("{\"sequence\":" + std::to_string(checkpoint.sequence.value()) +
        ",\"type\":" + std::to_string(item.type()) + ",\"regions\":[");
  const char* separator = "\"";
  for (const RecoveredRegion& region : item.regions()) {
    write(separator);
    separator = ",\"";
    for (std::span<const std::byte> part : {region.bulk, region.rest}) {
      while (!part.empty()) {
        const auto now = part.first(std::min<std::size_t>(part.size(), 65536));
        std::string text;
        append_hex(text, now);
        write(text);
        part = part.subspan(now.size());
      }
    }
    write("\"");
  }
  write("]}\n");
  ++other_items_;
}

void RecoveredDirectory::close_other() {
  if (other_ != nullptr && std::fclose(std::exchange(other_, nullptr)) != 0) {
    fail(path_, "write the file of other items", errno);
  }
}

void RecoveredDirectory::publish() {
  close_other();
  list_ranges();
  struct stat before {};
  if (::stat(path_.c_str(), &before) == 0) {
    (void)::fchmod(directory_, before.st_mode & 07777U);
  }
  // One call for all files; it tells of any write that failed since the directory was opened.
  if (::syncfs(directory_) != 0) {
    fail(path_, "sync the files", errno);
  }
  Interrupt::check();
  if (::rename(building_.c_str(), path_.c_str()) != 0) {
    fail(path_, "give the directory its name", errno);
  }
  building_.clear();
  if (::fsync(parent_) != 0) {
    fail(path_, "sync the directory above", errno);
  }
}

}  // namespace keel::tools
