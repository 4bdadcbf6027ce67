#include "support/sim_scheduled_disk.h"

#include <string_view>

#include "keel/base/check.h"

namespace keel {

SimScheduler& SimScheduledDisk::scheduler() const {
  KEEL_CHECK(thread_scheduler() == &owner_, "a simulated disk is called by a thread of no seed");
  return owner_;
}

void SimScheduledDisk::take_time(std::uint64_t usual_ns) {
  scheduler().point(ThreadPoint::kIo, 0);
  const std::uint64_t draw = scheduler().draw();
  std::uint64_t wait_ns = draw % (2 * usual_ns + 1);
  if (latency_.slow_one_in != 0 && draw / 65536 % latency_.slow_one_in == 0) {
    wait_ns += latency_.slow_ns;
  }
  if (draw % 4 != 0) {
    scheduler().sleep(ThreadPoint::kIo, wait_ns);
  }
}

template <class Operation>
auto SimScheduledDisk::run(const char* what, std::uint64_t usual_ns, std::uint64_t offset,
                           Operation operation) {
  take_time(usual_ns);
  scheduler().pause_points();
  const auto result = operation();
  scheduler().resume_points();
  scheduler().note("I/O", what, offset,
                   static_cast<std::uint64_t>(static_cast<std::int64_t>(result)));
  scheduler().point(ThreadPoint::kIo, 0);
  return result;
}

int SimScheduledDisk::open(const char* path, int flags, mode_t mode) {
  if (std::string_view(path).substr(0, 5) != "/sim/") {
    return SimDisk::open(path, flags, mode);  // the kernel's: what it says is not the seed's
  }
  int fd = -1;
  (void)run("open", latency_.read_ns, 0, [&] {
    fd = SimDisk::open(path, flags, mode);
    return fd < kFirstDescriptor ? fd : fd % kDescriptors;  // which disk it is, is not the seed's
  });
  return fd;
}

int SimScheduledDisk::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) {
  if (fd < kFirstDescriptor) {
    return SimDisk::fallocate(fd, mode, offset, bytes);
  }
  return run("fallocate", latency_.write_ns, offset,
             [&] { return SimDisk::fallocate(fd, mode, offset, bytes); });
}

ssize_t SimScheduledDisk::pwritev2(int fd, const struct iovec* parts, int count,
                                   std::uint64_t offset, int flags) {
  if (fd < kFirstDescriptor) {
    return SimDisk::pwritev2(fd, parts, count, offset, flags);
  }
  return run("write", latency_.write_ns, offset,
             [&] { return SimDisk::pwritev2(fd, parts, count, offset, flags); });
}

ssize_t SimScheduledDisk::preadv2(int fd, const struct iovec* parts, int count,
                                  std::uint64_t offset, int flags) {
  if (fd < kFirstDescriptor) {
    return SimDisk::preadv2(fd, parts, count, offset, flags);
  }
  return run("read", latency_.read_ns, offset,
             [&] { return SimDisk::preadv2(fd, parts, count, offset, flags); });
}

int SimScheduledDisk::fdatasync(int fd) {
  if (fd < kFirstDescriptor) {
    return SimDisk::fdatasync(fd);
  }
  return run("fdatasync", latency_.flush_ns, 0, [&] { return SimDisk::fdatasync(fd); });
}

int SimScheduledDisk::fsync(int fd) {
  if (fd < kFirstDescriptor) {
    return SimDisk::fsync(fd);
  }
  return run("fsync", latency_.flush_ns, 0, [&] { return SimDisk::fsync(fd); });
}

int SimScheduledDisk::ring_create(int fd, const struct iovec* buffers, int buffer_count,
                                  unsigned entries, OsRing** out) {
  return run("ring_create", latency_.read_ns, entries,
             [&] { return SimDisk::ring_create(fd, buffers, buffer_count, entries, out); });
}

int SimScheduledDisk::ring_submit(OsRing* ring, const RingWrite& write) {
  return run("ring_submit", 0, write.offset, [&] { return SimDisk::ring_submit(ring, write); });
}

int SimScheduledDisk::ring_wait(OsRing* ring, bool block, RingDone* out) {
  const int taken = run("ring_wait", block ? latency_.write_ns : 0, 0,
                        [&] { return SimDisk::ring_wait(ring, block, out); });
  if (taken > 0) {
    scheduler().note("I/O", "ring write", out->tag, static_cast<std::uint64_t>(out->result));
  }
  return taken;
}

std::uint64_t SimScheduledDisk::monotonic_ns() {
  const std::uint64_t now_ns = scheduler().now_ns();
  scheduler().note("clock", "", now_ns);
  return now_ns;
}

std::uint64_t SimScheduledDisk::realtime_ns() {
  constexpr std::uint64_t kEpoch = 1'700'000'000'000'000'000;
  return kEpoch + monotonic_ns();
}

void SimScheduledDisk::sleep_ns(std::uint64_t duration_ns) {
  scheduler().sleep(ThreadPoint::kSleep, duration_ns);
}

std::uint64_t SimScheduledDisk::random64() {
  const std::uint64_t value = SimDisk::random64();
  scheduler().note("random", "", value);
  return value;
}

void* SimScheduledDisk::metadata_allocate(std::size_t bytes) {
  if (refuse_one_in_ != 0 && scheduler().draw() % refuse_one_in_ == 0) {
    ++refused_;
    scheduler().note("memory", "refused", bytes);
    return nullptr;
  }
  scheduler().note("memory", "", bytes);
  return SimDisk::metadata_allocate(bytes);
}

}  // namespace keel
