// Writes, flushes and reads of a log device from several threads; writes that are stable on return;
// the first error, and that it is the last.
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "keel/alloc/pool.h"
#include "log/aligned_buffer.h"
#include "log/log_device.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;
constexpr const char* kPath = "/sim/log";

AlignedBuffer block_of(char fill, std::size_t blocks = 1) {
  auto made = AlignedBuffer::allocate(default_pool(), blocks * kBlock, "log device test");
  REQUIRE(made.ok());
  std::memset(made->data(), fill, blocks * kBlock);
  return std::move(*made);
}

std::unique_ptr<LogDevice> open_device(SimDisk& disk, bool buffered, std::size_t blocks = 64) {
  disk.set_image(kPath, SimContent(blocks * kBlock));
  auto opened = LogDevice::open(kPath, DeviceMode::kReadWrite, buffered);
  REQUIRE(opened.ok());
  disk.clear_io_log();
  return std::move(*opened);
}

using Write = Status (LogDevice::*)(std::uint64_t, struct iovec*, int);

Status write_one(LogDevice& device, Write write, std::uint64_t place, const AlignedBuffer& data) {
  struct iovec part {
    data.data(), data.bytes()
  };
  return (device.*write)(place * kBlock, &part, 1);
}

std::vector<SimOp> operations(const SimDisk& disk) {
  std::vector<SimOp> found;
  for (const SimIo& io : disk.io_log()) {
    found.push_back(io.op);
  }
  return found;
}

// What a power cut leaves that takes all it may: the first byte of a block.
std::byte after_power_cut(const SimDisk& disk, std::uint64_t place) {
  SimDisk after;
  after.boot_with(disk.snapshot(), [](const SimSector&) { return SimFate::kDrop; });
  return after.image(kPath)[place * kBlock];
}

}  // namespace

TEST_CASE("a durable write is stable on return, by one call, and says nothing of other writes") {
  for (const bool buffered : {false, true}) {
    SimDisk disk;
    const ScopedOs scope(disk);
    const auto device = open_device(disk, buffered);
    const auto data = block_of('d');
    REQUIRE(write_one(*device, &LogDevice::write, 3, data).ok());
    CHECK(after_power_cut(disk, 3) == std::byte{0});
    disk.clear_io_log();
    REQUIRE(device->flush().ok());
    CHECK(after_power_cut(disk, 3) == std::byte{'d'});
    disk.clear_io_log();
    REQUIRE(write_one(*device, &LogDevice::write_durable, 5, data).ok());
    CHECK(operations(disk) == std::vector{SimOp::kWrite});
    CHECK(after_power_cut(disk, 5) == std::byte{'d'});
  }
}

TEST_CASE("a durable write that one call cannot make is written, then flushed") {
  constexpr int kParts = 1500;
  for (const bool buffered : {false, true}) {
    {
      // The file system does not know the flag; from then on it is not tried.
      SimDisk disk;
      const ScopedOs scope(disk);
      const auto device = open_device(disk, buffered);
      disk.inject({.op = SimOp::kWrite, .error = EOPNOTSUPP});
      const auto data = block_of('d');
      REQUIRE(write_one(*device, &LogDevice::write_durable, 5, data).ok());
      CHECK(operations(disk) == std::vector{SimOp::kWrite, SimOp::kWrite, SimOp::kFlush});
      CHECK(after_power_cut(disk, 5) == std::byte{'d'});
      disk.clear_io_log();
      REQUIRE(write_one(*device, &LogDevice::write_durable, 6, data).ok());
      CHECK(operations(disk) == std::vector{SimOp::kWrite, SimOp::kFlush});
      CHECK(after_power_cut(disk, 6) == std::byte{'d'});
    }
    {
      // Short: finished once, then flushed.
      SimDisk disk;
      const ScopedOs scope(disk);
      const auto device = open_device(disk, buffered);
      disk.inject({.op = SimOp::kWrite, .effect = SimFault::Effect::kShort, .bytes = kBlock});
      REQUIRE(write_one(*device, &LogDevice::write_durable, 7, block_of('d', 3)).ok());
      CHECK(operations(disk) == std::vector{SimOp::kWrite, SimOp::kWrite, SimOp::kFlush});
      CHECK(after_power_cut(disk, 7) == std::byte{'d'});
      CHECK(after_power_cut(disk, 9) == std::byte{'d'});
    }
    {
      // More parts than a call takes.
      SimDisk disk;
      const ScopedOs scope(disk);
      const auto device = open_device(disk, buffered, kParts);
      const auto data = block_of('d');
      std::vector<struct iovec> parts(kParts, {data.data(), kBlock});
      REQUIRE(device->write_durable(0, parts.data(), kParts).ok());
      CHECK(operations(disk) == std::vector{SimOp::kWrite, SimOp::kWrite, SimOp::kFlush});
      CHECK(after_power_cut(disk, 0) == std::byte{'d'});
      CHECK(after_power_cut(disk, kParts - 1) == std::byte{'d'});
    }
  }
}

TEST_CASE("a durable write that is not supported after one that was is a failed write") {
  for (const bool buffered : {false, true}) {
    SimDisk disk;
    const ScopedOs scope(disk);
    const auto device = open_device(disk, buffered);
    const auto data = block_of('d');
    REQUIRE(write_one(*device, &LogDevice::write_durable, 5, data).ok());
    disk.clear_io_log();
    disk.inject({.op = SimOp::kWrite, .error = EOPNOTSUPP});
    const Status failed = write_one(*device, &LogDevice::write_durable, 6, data);
    REQUIRE_FALSE(failed.ok());
    CHECK(failed.error().sys_errno == EOPNOTSUPP);
    CHECK(operations(disk) == std::vector{SimOp::kWrite});
    CHECK_FALSE(write_one(*device, &LogDevice::write, 7, data).ok());  // latched
  }
}

TEST_CASE("a short write is finished once, short again, or within a unit, is an error") {
  struct Case {
    std::uint64_t bytes;
    bool again;
    bool ok;
  };
  for (const Write write : {&LogDevice::write, &LogDevice::write_durable}) {
    for (const Case& one : {Case{kBlock, false, true}, Case{0, false, true},
                            Case{kBlock, true, false}, Case{512, false, false}}) {
      CAPTURE(one.bytes);
      SimDisk disk;
      const ScopedOs scope(disk);
      const auto device = open_device(disk, false);
      disk.inject({.op = SimOp::kWrite,
                   .effect = SimFault::Effect::kShort,
                   .for_good = one.again,
                   .bytes = one.bytes});
      const Status wrote = write_one(*device, write, 4, block_of('s', 4));
      CHECK(wrote.ok() == one.ok);
      if (!one.ok) {
        CHECK(wrote.error().code == Errc::kIo);
        CHECK(device->flush().error().value == wrote.error().value);
      }
    }
  }
}

TEST_CASE("threads write, flush and read one device at a time each on its own, and none disturbs") {
  for (const bool buffered : {false, true}) {
    SimDisk disk;
    const ScopedOs scope(disk);
    const auto device = open_device(disk, buffered);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < 4; ++id) {
      threads.emplace_back([&, id] {
        const auto mine = AlignedBuffer::allocate(default_pool(), kBlock, "test");
        const auto back = AlignedBuffer::allocate(default_pool(), kBlock, "test");
        for (int round = 0; round < 200; ++round) {
          const std::uint64_t place = id * 16 + static_cast<unsigned>(round) % 16;
          std::memset(mine->data(), round % 251 + 1, kBlock);
          const auto write = round % 3 == 0 ? &LogDevice::write_durable : &LogDevice::write;
          bool good = write_one(*device, write, place, *mine).ok();
          good = good && (round % 5 != 0 || device->flush().ok());
          good = good && device->read(place * kBlock, back->data(), kBlock).ok() &&
                 std::memcmp(mine->data(), back->data(), kBlock) == 0;
          wrong += good ? 0 : 1;
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("the first error of any thread is the last: all get it, and the file is left alone") {
  for (const SimOp op : {SimOp::kWrite, SimOp::kFlush}) {
    for (const bool buffered : {false, true}) {
      SimDisk disk;
      const ScopedOs scope(disk);
      const auto device = open_device(disk, buffered);
      // Whichever comes first is kept; the others differ, and are not heard of.
      disk.inject({.op = op, .nth = 150, .error = EREMOTEIO});
      disk.inject({.op = op, .nth = 151, .error = ENODEV, .for_good = true});
      std::vector<Status> last(4);
      std::vector<std::thread> threads;
      for (unsigned id = 0; id < 4; ++id) {
        threads.emplace_back([&, id] {
          const auto mine = AlignedBuffer::allocate(default_pool(), kBlock, "test");
          for (Status status; status.ok();) {
            status = write_one(*device, &LogDevice::write, id, *mine);
            status = status.ok() ? device->flush() : status;
            status =
                status.ok() ? write_one(*device, &LogDevice::write_durable, id, *mine) : status;
            last[id] = status;
          }
        });
      }
      for (std::thread& thread : threads) {
        thread.join();
      }
      disk.clear_faults();
      disk.clear_io_log();
      const Error first = device->status().error();
      CHECK((first.sys_errno == EREMOTEIO || first.sys_errno == ENODEV));
      for (const Status& status : last) {
        CHECK(status.error().sys_errno == first.sys_errno);
        CHECK(status.error().value == first.value);
      }
      CHECK(device->flush().error().sys_errno == first.sys_errno);
      CHECK_FALSE(write_one(*device, &LogDevice::write, 1, block_of('x')).ok());
      CHECK_FALSE(write_one(*device, &LogDevice::write_durable, 1, block_of('x')).ok());
      CHECK(disk.io_log().empty());
    }
  }
}

// As the kernel does: a failed write-back is told to one of two calls that flush, here to the
// first, and the other returns at once, with no error.
class TellsOnce : public SimDisk {
 public:
  int fdatasync(int fd) override { return is_told() ? -EIO : SimDisk::fdatasync(fd); }
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    return is_told() ? -EIO : SimDisk::pwritev2(fd, parts, count, offset, flags);
  }
  std::atomic<bool> entered{false};

 private:
  bool is_told() {
    if (calls_++ != 0) {
      done_ = true;
      return false;
    }
    entered = true;
    const std::uint64_t start = monotonic_ns();
    while (!done_ && monotonic_ns() - start < 50'000'000) {
      std::this_thread::yield();
    }
    return true;
  }
  std::atomic<int> calls_{0};
  std::atomic<bool> done_{false};
};

TEST_CASE("through the page cache a failed flush reaches a flush made at the same time too") {
  const auto flush = [](LogDevice& device) { return device.flush(); };
  const auto write = [](LogDevice& device) {
    return write_one(device, &LogDevice::write_durable, 1, block_of('d'));
  };
  using Call = std::function<Status(LogDevice&)>;
  for (const Call& told : {Call(flush), Call(write)}) {
    for (const Call& at_the_same_time : {Call(flush), Call(write)}) {
      TellsOnce disk;
      const ScopedOs scope(disk);
      const auto device = open_device(disk, true);
      Status first;
      std::thread other([&] { first = told(*device); });
      while (!disk.entered) {
        std::this_thread::yield();
      }
      const Status second = at_the_same_time(*device);
      other.join();
      CHECK(first.error().sys_errno == EIO);
      REQUIRE_FALSE(second.ok());
      CHECK(second.error().sys_errno == EIO);
    }
  }
}

TEST_CASE("a flush that ends after another thread's failure does not call anything stable") {
  SimDisk disk;
  const ScopedOs scope(disk);
  const auto device = open_device(disk, false);
  // The failure comes between the call and its return.
  disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kFlush) {
      (void)device->fail({Errc::kIo, EREMOTEIO, "of another thread", 0});
    }
  });
  const Status flushed = device->flush();
  REQUIRE_FALSE(flushed.ok());
  CHECK(flushed.error().sys_errno == EREMOTEIO);
}
