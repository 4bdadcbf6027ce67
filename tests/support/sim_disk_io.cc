// Data, clock and random numbers of the simulated disk.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "keel/base/check.h"
#include "support/sim_disk.h"

namespace keel {
namespace {

constexpr std::uint64_t kSectorBytes = 512;
constexpr int kMaxParts = 1024;  // IOV_MAX

using Effect = SimFault::Effect;

bool is_aligned(const struct iovec* parts, int count, std::uint64_t offset, std::uint64_t align) {
  bool aligned = offset % align == 0;
  for (int i = 0; i < count; ++i) {
    aligned = aligned && parts[i].iov_len % align == 0 &&
              reinterpret_cast<std::uintptr_t>(parts[i].iov_base) % align == 0;
  }
  return aligned;
}

std::uint64_t total_bytes(const struct iovec* parts, int count) {
  std::uint64_t bytes = 0;
  for (int i = 0; i < count; ++i) {
    bytes += parts[i].iov_len;
  }
  return bytes;
}

SimContent gather(const struct iovec* parts, int count) {
  SimContent data;
  data.reserve(total_bytes(parts, count));
  for (int i = 0; i < count; ++i) {
    const std::byte* from = static_cast<const std::byte*>(parts[i].iov_base);
    data.insert(data.end(), from, from + parts[i].iov_len);
  }
  return data;
}

void scatter(const SimContent& data, const struct iovec* parts, int count) {
  std::size_t done = 0;
  for (int i = 0; i < count && done < data.size(); ++i) {
    const std::size_t part = std::min(parts[i].iov_len, data.size() - done);
    std::copy_n(data.data() + done, part, static_cast<std::byte*>(parts[i].iov_base));
    done += part;
  }
}

void flip(SimContent& data, std::uint64_t bit) {
  if (bit / 8 < data.size()) {
    data[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

std::size_t whole_sectors(std::uint64_t bytes, std::size_t limit) {
  return std::min<std::uint64_t>(bytes - bytes % kSectorBytes, limit);
}

bool bad_parts(const struct iovec* parts, int count, std::uint64_t offset) {
  return count < 0 || count > kMaxParts || offset > SimDisk::kMaxFileBytes ||
         total_bytes(parts, count) > SimDisk::kMaxFileBytes - offset;
}

}  // namespace

// A durable write waits for older pending ones only to keep its place among them.
void SimDisk::land(File& file, std::uint64_t offset, SimContent data, bool durable) {
  if (data.empty()) {
    return;
  }
  file.cached.write(offset, data.data(), data.size());
  SimImage& image = file.disk.image;
  if (durable && image.pending.empty()) {
    image.stable.write(offset, data.data(), data.size());
    return;
  }
  auto shared = std::make_shared<const SimContent>(std::move(data));
  image.pending.push_back({last_sequence_ + 1, offset, std::move(shared), durable});
}

void SimDisk::land_resize(File& file, std::uint64_t bytes) {
  file.cached.resize(bytes);
  file.disk.image.pending.push_back({last_sequence_ + 1, bytes, nullptr, false});
}

ssize_t SimDisk::write_file(int fd, SimContent data, bool aligned, int flags, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (file == nullptr || !descriptor.may_write()) {
    return -EBADF;
  }
  if ((flags & ~(RWF_DSYNC | RWF_SYNC | RWF_HIPRI | RWF_NOWAIT)) != 0) {
    return -EOPNOTSUPP;
  }
  if ((descriptor.flags & O_DIRECT) != 0 && !aligned) {
    return -EINVAL;
  }
  if (file->disk.block_device && io.offset + data.size() > file->cached.size()) {
    return -ENOSPC;  // Linux writes up to the end first; nobody here gets that far
  }
  std::uint64_t offset = io.offset;
  ssize_t result = static_cast<ssize_t>(data.size());
  bool durable = (flags & (RWF_DSYNC | RWF_SYNC)) != 0 || (descriptor.flags & O_DSYNC) != 0;
  if (const std::optional<SimFault> fault = take_fault(io)) {
    switch (fault->effect) {
      case Effect::kFail:
      case Effect::kFailAndDrop:
        data.resize(whole_sectors(fault->bytes, data.size()));
        durable = false;
        result = -fault->error;
        break;
      case Effect::kShort:
        data.resize(whole_sectors(fault->bytes, data.size()));
        result = static_cast<ssize_t>(data.size());
        break;
      case Effect::kLie: data.clear(); break;
      case Effect::kMisdirect: offset = fault->offset; break;
      case Effect::kFlipBit: flip(data, fault->bit); break;
      case Effect::kSlow: break;
    }
  }
  land(*file, offset, std::move(data), durable);
  return result;
}

SimIo SimDisk::write_call(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                          int flags) {
  SimIo io{.op = SimOp::kWrite, .offset = offset, .bytes = total_bytes(parts, count)};
  SimContent data = gather(parts, count);
  const bool aligned = is_aligned(parts, count, offset, options_.direct_align);
  MutexLock lock(mutex_);
  record(io, write_file(fd, std::move(data), aligned, flags, io));
  return io;
}

ssize_t SimDisk::pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                          int flags) {
  if (!is_virtual(fd)) {
    return Os::pwritev2(fd, parts, count, offset, flags);
  }
  if (bad_parts(parts, count, offset)) {
    return -EINVAL;
  }
  announce_durable_write(fd, parts, count, offset, flags);
  return announce(write_call(fd, parts, count, offset, flags));
}

void SimDisk::announce_durable_write(int fd, const struct iovec* parts, int count,
                                     std::uint64_t offset, int flags) {
  std::shared_ptr<const DurableWriteHook> hook;
  {
    MutexLock lock(mutex_);
    const auto found = descriptors_.find(fd);
    if (found != descriptors_.end() && found->second.file != 0 &&
        ((flags & (RWF_DSYNC | RWF_SYNC)) != 0 || (found->second.flags & O_DSYNC) != 0)) {
      hook = durable_write_hook_;
    }
  }
  if (hook) {
    (*hook)({fd, offset, std::make_shared<const SimContent>(gather(parts, count))});
  }
}

SimSnapshot SimDisk::snapshot_during(const SimDurableWrite& write) const {
  MutexLock lock(mutex_);
  SimSnapshot taken = take_snapshot();
  const auto found = descriptors_.find(write.fd);
  KEEL_CHECK(found != descriptors_.end(), "a durable write to no file",
             static_cast<std::uint64_t>(write.fd));
  taken.files.at(found->second.file)
      .image.pending.push_back({last_sequence_ + 1, write.offset, write.data, false});
  return taken;
}

// On success `data` is cut to what was read.
ssize_t SimDisk::read_file(int fd, SimContent& data, bool aligned, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (file == nullptr) {
    return -EISDIR;
  }
  if (!descriptor.may_read()) {
    return -EBADF;
  }
  if ((descriptor.flags & O_DIRECT) != 0 && !aligned) {
    return -EINVAL;
  }
  const std::optional<SimFault> fault = take_fault(io);
  const bool misdirected = fault && fault->effect == Effect::kMisdirect;
  data.resize(file->cached.read(misdirected ? fault->offset : io.offset, data.data(), data.size()));
  if (fault && (fault->effect == Effect::kFail || fault->effect == Effect::kFailAndDrop)) {
    return -fault->error;
  }
  if (fault && fault->effect == Effect::kShort) {
    data.resize(whole_sectors(fault->bytes, data.size()));
  }
  if (fault && fault->effect == Effect::kFlipBit) {
    flip(data, fault->bit);
  }
  return static_cast<ssize_t>(data.size());
}

ssize_t SimDisk::preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                         int flags) {
  if (!is_virtual(fd)) {
    return Os::preadv2(fd, parts, count, offset, flags);
  }
  if (bad_parts(parts, count, offset)) {
    return -EINVAL;
  }
  SimIo io{.op = SimOp::kRead, .offset = offset, .bytes = total_bytes(parts, count)};
  SimContent data(io.bytes);
  const bool aligned = is_aligned(parts, count, offset, options_.direct_align);
  {
    MutexLock lock(mutex_);
    record(io, read_file(fd, data, aligned, io));
  }
  if (io.result > 0) {
    scatter(data, parts, count);
  }
  return announce(io);
}

int SimDisk::flush(int fd, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  if (const std::optional<SimFault> fault = take_fault(io)) {
    if (fault->effect == Effect::kFailAndDrop) {
      if (file == nullptr) {
        pending_names_.clear();
      } else {  // But for what a write had made stable by itself.
        std::erase_if(file->disk.image.pending,
                      [](const SimWrite& write) { return !write.durable; });
      }
    }
    if (fault->effect == Effect::kFail || fault->effect == Effect::kFailAndDrop) {
      return -fault->error;
    }
    if (fault->effect == Effect::kLie) {
      return 0;
    }
  }
  if (file == nullptr) {
    stable_names_ = names_;
    pending_names_.clear();
    drop_unreachable();
    return 0;
  }
  file->disk.image.settle();
  return 0;
}

int SimDisk::flush_call(int fd) {
  SimIo io{.op = SimOp::kFlush};
  {
    MutexLock lock(mutex_);
    record(io, flush(fd, io));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::fdatasync(int fd) { return is_virtual(fd) ? flush_call(fd) : Os::fdatasync(fd); }

int SimDisk::fsync(int fd) { return is_virtual(fd) ? flush_call(fd) : Os::fsync(fd); }

int SimDisk::drop_clean_pages(int fd) {
  if (!is_virtual(fd)) {
    return Os::drop_clean_pages(fd);
  }
  MutexLock lock(mutex_);
  Descriptor descriptor;
  File* file = nullptr;
  SimIo io;  // not an operation of the disk
  if (const int bad = find(fd, io, descriptor, file); bad != 0 || file == nullptr) {
    return bad;
  }
  file->cached = file->disk.image.stable;
  for (const SimWrite& write : file->disk.image.pending) {
    write.apply(file->cached);
  }
  return 0;
}

int SimDisk::mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
                  std::uint64_t offset, void** out) {
  return is_virtual(fd) ? -ENODEV : Os::mmap(address, bytes, protection, flags, fd, offset, out);
}

std::uint64_t SimDisk::monotonic_ns() {
  return options_.virtual_clock ? clock_ns_.load(std::memory_order_relaxed) : Os::monotonic_ns();
}

std::uint64_t SimDisk::realtime_ns() {
  constexpr std::uint64_t kEpoch = 1'700'000'000'000'000'000;
  return options_.virtual_clock ? kEpoch + clock_ns_.load(std::memory_order_relaxed)
                                : Os::realtime_ns();
}

void SimDisk::sleep_ns(std::uint64_t duration_ns) {
  if (options_.virtual_clock) {
    advance_clock(duration_ns);
  } else {
    Os::sleep_ns(duration_ns);
  }
}

std::uint64_t SimDisk::random64() {
  // Relaxed: each thread needs a number of its own, in no order.
  const std::uint64_t draw = random_draws_.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t state = options_.seed ^ (draw * 0xd6e8feb86659fd93U);
  return sim_random(state);
}

}  // namespace keel
