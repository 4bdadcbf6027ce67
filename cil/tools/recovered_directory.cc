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

void check_absent_or_empty(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
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
int write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote <= 0) {
      return wrote < 0 ? errno : EIO;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
  }
  return 0;
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
  std::string name = path_ + ".keel-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) {
    fail(path_, "make a directory beside it", errno);
  }
  building_ = name;
  directory_ = ::open(building_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) {
    const int error = errno;
    (void)::rmdir(building_.c_str());
    fail(path_, "open the directory beside it", error);
  }
}

RecoveredDirectory::~RecoveredDirectory() {
  if (other_ != nullptr) {
    (void)std::fclose(other_);
  }
  if (directory_ >= 0) {
    (void)::close(directory_);
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
  const bool was_there = ::faccessat(directory_, name.c_str(), F_OK, 0) == 0;
  if (object.erased) {
    if (was_there && ::unlinkat(directory_, name.c_str(), 0) != 0) {
      fail(path_, "remove an erased object's file", errno);
    }
    objects_ -= was_there ? 1U : 0U;
    return;
  }
  write_whole(name, object.bytes);
  objects_ += was_there ? 0U : 1U;
}

void RecoveredDirectory::write_whole(const std::string& name, const RecoveredRegion& bytes) {
  const int fd = ::openat(directory_, name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) {
    fail(path_, "make an object's file", errno);
  }
  int error = write_all(fd, bytes.bulk);
  error = error != 0 ? error : write_all(fd, bytes.rest);
  if (::close(fd) != 0 && error == 0) {
    error = errno;
  }
  if (error != 0) {
    fail(path_, "write an object's file", error);
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
  const std::string parent = fs::path(path_).parent_path().string();
  const int above =
      ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = above >= 0 && ::fsync(above) == 0;
  const int error = errno;
  if (above >= 0) {
    (void)::close(above);
  }
  if (!synced) {
    fail(path_, "sync the directory above", error);
  }
}

}  // namespace keel::tools
