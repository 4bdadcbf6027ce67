// Block devices of the simulated disk: files of a fixed size that somebody may have claimed.
#include <fcntl.h>

#include <cerrno>

#include "support/sim_disk.h"

namespace keel {

void SimDisk::add_block_device(std::string_view path, std::uint64_t bytes) {
  set_image(path, SimContent(bytes));
  MutexLock lock(mutex_);
  named(path).disk.block_device = true;
}

void SimDisk::set_in_use(std::string_view path, bool in_use) {
  MutexLock lock(mutex_);
  named(path).in_use = in_use;
}

bool SimDisk::is_claimed(const File& file, std::uint64_t id) const {
  bool claimed = file.in_use;
  for (const auto& entry : descriptors_) {
    claimed |= entry.second.file == id && (entry.second.flags & O_EXCL) != 0;
  }
  return file.disk.block_device && claimed;
}

int SimDisk::unlock(int fd) {
  if (!is_virtual(fd)) {
    return Os::unlock(fd);
  }
  MutexLock lock(mutex_);
  const auto entry = descriptors_.find(fd);
  if (entry == descriptors_.end() || entry->second.file == 0) {
    return -EBADF;
  }
  files_.at(entry->second.file).locks.erase(fd);
  return 0;
}

int SimDisk::block_device_bytes(int fd, std::uint64_t* out) {
  if (!is_virtual(fd)) {
    return Os::block_device_bytes(fd, out);
  }
  SimIo io{.op = SimOp::kStat};
  {
    MutexLock lock(mutex_);
    Descriptor descriptor;
    File* file = nullptr;
    int result = find(fd, io, descriptor, file);
    if (result == 0) {
      result = file == nullptr || !file->disk.block_device ? -ENOTTY : fail_if_asked(io);
    }
    if (result == 0) {
      *out = file->cached.size();
    }
    record(io, result);
  }
  return static_cast<int>(announce(io));
}

int SimDisk::physical_sector_bytes(int fd) {
  if (!is_virtual(fd)) {
    return Os::physical_sector_bytes(fd);
  }
  return options_.physical_sector == 0 ? -ENOENT : static_cast<int>(options_.physical_sector);
}

}  // namespace keel
