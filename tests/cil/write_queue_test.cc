// Writes under way: any order, any size, either way into the kernel; what fails, and what is left
// waiting then.
#include "log/write_queue.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/scopes.h"
#include "log/aligned_buffer.h"
#include "probe.h"
#include "support/death.h"
#include "support/scratch_directory.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;
constexpr unsigned kDepth = 8;
constexpr IoMode kModes[] = {IoMode::kSync, IoMode::kUring};

AlignedBuffer buffer_of(std::size_t bytes, char fill = 0) {
  auto made = AlignedBuffer::allocate(default_pool(), bytes, "write queue test");
  REQUIRE(made.ok());
  std::memset(made->data(), fill, bytes);
  return std::move(*made);
}

// A log device and a queue over it; staging is of kDepth blocks, block i filled with 'a' + i.
struct Queue {
  Queue(const std::string& path, IoMode mode, bool buffered = false) {
    auto opened = LogDevice::open(path, DeviceMode::kReadWrite, buffered);
    REQUIRE(opened.ok());
    device = std::move(*opened);
    for (unsigned i = 0; i < kDepth; ++i) {
      std::memset(staging.data() + i * kBlock, static_cast<char>('a' + i), kBlock);
      parts[i] = {staging.data() + i * kBlock, kBlock};
    }
    const struct iovec piece { staging.data(), staging.bytes() };
    auto made = WriteQueue::make(*device, mode, {&piece, 1}, kDepth);
    REQUIRE(made.ok());
    queue = std::move(*made);
    REQUIRE(queue->mode() == mode);
  }
  // Block i of staging to block `place` of the file.
  Status start(unsigned i, std::uint64_t place) {
    parts[i] = {staging.data() + i * kBlock, kBlock};
    return queue->start(i, place * kBlock, &parts[i], 1);
  }
  [[nodiscard]] std::byte read(std::uint64_t place) const {
    const AlignedBuffer block = buffer_of(kBlock);
    REQUIRE(device->read(place * kBlock, block.data(), kBlock).ok());
    return block.data()[kBlock - 1];
  }

  AlignedBuffer staging = buffer_of(kDepth * kBlock);
  std::array<struct iovec, kDepth> parts{};
  std::unique_ptr<LogDevice> device;
  std::unique_ptr<WriteQueue> queue;
};

// What the file should hold. Each slot writes to places of its own, so that order does not matter.
struct Model {
  static constexpr std::size_t kSlotBlocks = 32;
  static constexpr std::size_t kMaxParts = 6;

  explicit Model(std::uint64_t seed) : random(seed) {}

  void start(Queue& world, unsigned slot) {
    const std::size_t place = (slot * kSlotBlocks + random() % (kSlotBlocks - 2 * kMaxParts));
    std::byte* to = content.data() + place * kBlock;
    std::byte* from = memory.data() + slot * 2 * kMaxParts * kBlock;
    const bool staged = random() % 3 == 0;
    const int count = staged ? 1 : static_cast<int>(random() % kMaxParts) + 1;
    for (int i = 0; i < count; ++i) {
      const std::size_t bytes = staged ? kBlock : (random() % 2 + 1) * kBlock;
      std::byte* part = staged ? world.staging.data() + slot * kBlock : from;
      std::memset(part, static_cast<int>(random() % 256), bytes);
      std::memcpy(to, part, bytes);
      parts[slot][static_cast<std::size_t>(i)] = {part, bytes};
      from += bytes;
      to += bytes;
    }
    REQUIRE(world.queue->start(slot, place * kBlock, parts[slot].data(), count).ok());
    is_started[slot] = true;
  }

  std::mt19937_64 random;
  SimContent content = SimContent(kDepth * kSlotBlocks * kBlock);
  AlignedBuffer memory = buffer_of(kDepth * 2 * kMaxParts * kBlock);
  std::array<std::array<struct iovec, kMaxParts>, kDepth> parts{};
  std::array<bool, kDepth> is_started{};
};

std::size_t count_of(const SimDisk& disk, SimOp op) {
  std::size_t count = 0;
  for (const SimIo& io : disk.io_log()) {
    count += io.op == op ? 1 : 0;
  }
  return count;
}

// False, and says so, where the kernel gives no ring.
bool kernel_has_rings(const std::string& path) {
  auto device = LogDevice::open(path, DeviceMode::kReadWrite, true);
  REQUIRE(device.ok());
  const auto queue = WriteQueue::make(**device, IoMode::kUring, {}, 1);
  if (!queue.ok()) {
    MESSAGE("skipped: " << queue.error().message());
  }
  return queue.ok();
}

// A log in the directory, and whether it takes direct I/O.
struct RealLog {
  RealLog() {
    LogConfig config;
    config.size = kMinLogBytes;
    buffered = !create_log(path, config).ok();
    config.buffered = buffered;
    REQUIRE((!buffered || create_log(path, config).ok()));
  }
  ScratchDirectory directory;
  std::string path = directory / "log";
  bool buffered = false;
};

}  // namespace

TEST_CASE("writes of any size, started and waited for in any order, leave what a vector holds") {
  const std::uint64_t first_seed = test_seed("write queue model", 1);
  for (const IoMode mode : kModes) {
    for (std::uint64_t seed = first_seed; seed < first_seed + 20; ++seed) {
      CAPTURE(seed);
      const bool registers = seed % 3 != 0;
      SimDisk disk({.seed = seed, .registers_buffers = registers});
      const ScopedOs scope(disk);
      disk.set_image("/sim/log", SimContent(kDepth * Model::kSlotBlocks * kBlock));
      Queue world("/sim/log", mode);
      CHECK(world.queue->staging_is_registered() == (mode == IoMode::kUring && registers));
      Model model(seed);
      for (int step = 0; step < 600; ++step) {
        const auto slot = static_cast<unsigned>(model.random() % kDepth);
        if (model.is_started[slot]) {
          REQUIRE(world.queue->wait(slot).ok());
          model.is_started[slot] = false;
        } else {
          model.start(world, slot);
        }
        if (step % 40 == 0) {
          REQUIRE(world.queue->wait_all().ok());
          model.is_started = {};
          // One at a time: what is left of a short write must not be short again.
          disk.clear_faults();
          disk.inject({.op = SimOp::kWrite,
                       .nth = model.random() % 10 + 1,
                       .effect = SimFault::Effect::kShort,
                       .bytes = kBlock});
        }
      }
      REQUIRE(world.queue->wait_all().ok());
      CHECK(disk.image("/sim/log") == model.content);
    }
  }
}

TEST_CASE("writes complete in an order of the disk's, and a wait for one waits for no other") {
  std::size_t orders = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SimDisk disk({.seed = seed});
    const ScopedOs scope(disk);
    disk.set_image("/sim/log", SimContent(16 * kBlock));
    Queue world("/sim/log", IoMode::kUring);
    disk.clear_io_log();
    for (unsigned i = 0; i < kDepth; ++i) {
      REQUIRE(world.start(i, i).ok());
    }
    REQUIRE(world.queue->wait(3).ok());
    CHECK(world.read(3) == std::byte{'a' + 3});
    REQUIRE(world.queue->wait_all().ok());
    std::uint64_t last = 0;
    bool in_order = true;
    for (const SimIo& io : disk.io_log()) {
      if (io.op == SimOp::kWrite) {
        in_order = in_order && io.offset >= last;
        last = io.offset;
      }
    }
    orders += in_order ? 0U : 1U;
    for (unsigned i = 0; i < kDepth; ++i) {
      CHECK(world.read(i) == std::byte(static_cast<unsigned char>('a' + i)));
    }
  }
  CHECK(orders > 10);
}

TEST_CASE("what fails at start or at completion is latched, and the others are waited for") {
  for (const IoMode mode : kModes) {
    for (const SimOp op : {SimOp::kWrite, SimOp::kRingSubmit, SimOp::kRingWait}) {
      if (mode == IoMode::kSync && op != SimOp::kWrite) {
        continue;
      }
      for (std::uint64_t nth = 1; nth <= kDepth; ++nth) {
        for (std::uint64_t seed = 1; seed <= 4; ++seed) {
          CAPTURE(nth);
          SimDisk disk({.seed = seed});
          const ScopedOs scope(disk);
          disk.set_image("/sim/log", SimContent(16 * kBlock));
          Queue world("/sim/log", mode);
          disk.inject({.op = op, .nth = nth, .error = EREMOTEIO});
          bool seen = false;
          std::array<bool, kDepth> started{};
          for (unsigned i = 0; i < kDepth; ++i) {
            started[i] = world.start(i, i).ok();
            CHECK_FALSE((started[i] && seen));
            seen |= !started[i];
          }
          const Status waited = world.queue->wait_all();
          const bool fired = [&] {
            for (const SimIo& io : disk.io_log()) {
              if (io.faulty) return true;
            }
            return false;
          }();
          CHECK(fired == !waited.ok());
          CHECK((fired || op == SimOp::kRingWait));  // a look may find all without a wait
          if (!fired) {
            continue;
          }
          CHECK(waited.error().sys_errno == EREMOTEIO);
          CHECK(world.device->status().error().sys_errno == EREMOTEIO);
          // All that was started is in the file but the one that failed: nothing is under way.
          int missing = 0;
          for (unsigned i = 0; i < kDepth; ++i) {
            missing += started[i] && world.read(i) == std::byte{0} ? 1 : 0;
          }
          CHECK(missing <= (op == SimOp::kWrite ? 1 : 0));
          disk.clear_io_log();
          for (unsigned i = 0; i < kDepth; ++i) {
            CHECK(world.start(i, 8 + i).error().sys_errno == EREMOTEIO);
            CHECK(world.queue->wait(i).error().sys_errno == EREMOTEIO);
          }
          CHECK(world.device->flush().error().sys_errno == EREMOTEIO);
          CHECK(disk.io_log().empty());
        }
      }
    }
  }
}

TEST_CASE("a failure elsewhere in the device stops the queue, and reaches who waits") {
  for (const IoMode mode : kModes) {
    LogWorld log;
    Queue world(kLogPath, mode);
    REQUIRE(world.start(0, 10).ok());
    log.disk.inject({.op = SimOp::kFlush, .error = EREMOTEIO});
    CHECK_FALSE(world.device->flush().ok());
    CHECK(world.queue->wait(0).error().sys_errno == EREMOTEIO);
    CHECK(world.start(1, 11).error().sys_errno == EREMOTEIO);
  }
}

TEST_CASE("a write that is short is finished once; short again, or within a unit, is an error") {
  struct Case {
    std::uint64_t bytes;
    bool again;
    bool ok;
  };
  for (const IoMode mode : kModes) {
    for (const Case& one : {Case{kBlock, false, true}, Case{0, false, true},
                            Case{kBlock, true, false}, Case{512, false, false}}) {
      CAPTURE(one.bytes);
      LogWorld log;
      Queue world(kLogPath, mode);
      log.disk.inject({.op = SimOp::kWrite,
                       .effect = SimFault::Effect::kShort,
                       .for_good = one.again,
                       .bytes = one.bytes});
      struct iovec all {
        world.staging.data(), 4 * kBlock
      };
      (void)world.queue->start(0, 20 * kBlock, &all, 1);
      const Status waited = world.queue->wait(0);
      CHECK(waited.ok() == one.ok);
      if (!one.ok) {
        CHECK(waited.error().code == Errc::kIo);
        CHECK_FALSE(world.device->flush().ok());
        continue;
      }
      for (unsigned i = 0; i < 4; ++i) {
        CHECK(world.read(20 + i) == std::byte(static_cast<unsigned char>('a' + i)));
      }
    }
  }
}

TEST_CASE("more parts than one call takes go in several") {
  constexpr std::size_t kParts = 1500;
  for (const IoMode mode : kModes) {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.set_image("/sim/log", SimContent(kParts * kBlock));
    Queue world("/sim/log", mode);
    std::vector<struct iovec> parts(kParts);
    for (std::size_t i = 0; i < kParts; ++i) {
      parts[i] = {world.staging.data() + i % kDepth * kBlock, kBlock};
    }
    REQUIRE(world.queue->start(0, 0, parts.data(), kParts).ok());
    REQUIRE(world.queue->wait(0).ok());
    const SimContent image = disk.image("/sim/log");
    for (std::size_t i = 0; i < kParts; ++i) {
      REQUIRE(image[i * kBlock] == std::byte(static_cast<unsigned char>('a' + i % kDepth)));
    }
    CHECK(count_of(disk, SimOp::kWrite) == 2);
  }
}

TEST_CASE("a kernel without memory or room to take a write has it made the other way") {
  for (const int error : {EAGAIN, ENOMEM, EBUSY}) {
    LogWorld log;
    Queue world(kLogPath, IoMode::kUring);
    log.disk.inject({.op = SimOp::kRingSubmit, .nth = 2, .error = error});
    for (unsigned i = 0; i < kDepth; ++i) {
      REQUIRE(world.start(i, 30 + i).ok());
    }
    REQUIRE(world.queue->wait_all().ok());
    for (unsigned i = 0; i < kDepth; ++i) {
      CHECK(world.read(30 + i) == std::byte(static_cast<unsigned char>('a' + i)));
    }
  }
}

TEST_CASE("no io_uring: kAuto does without it, kUring says so") {
  for (const int error : {ENOSYS, EPERM, ENOMEM, EMFILE}) {
    CAPTURE(error);
    LogWorld log;
    const auto device = LogDevice::open(kLogPath, DeviceMode::kReadWrite, false);
    REQUIRE(device.ok());
    log.disk.inject({.op = SimOp::kRingCreate, .error = error, .for_good = true});
    const auto automatic = WriteQueue::make(**device, IoMode::kAuto, {}, 4);
    REQUIRE(automatic.ok());
    CHECK((*automatic)->mode() == IoMode::kSync);
    const auto wanted = WriteQueue::make(**device, IoMode::kUring, {}, 4);
    REQUIRE_FALSE(wanted.ok());
    CHECK(wanted.error().sys_errno == error);
    CHECK((wanted.error().code == Errc::kUnsupported) == (error == ENOSYS));
    log.disk.clear_faults();
    CHECK((*WriteQueue::make(**device, IoMode::kAuto, {}, 4))->mode() == IoMode::kUring);
    CHECK((*WriteQueue::make(**device, IoMode::kSync, {}, 4))->mode() == IoMode::kSync);
  }
}

TEST_CASE("a queue of no slots, of too many, or of staging in too many pieces is not made") {
  LogWorld log;
  const auto device = LogDevice::open(kLogPath, DeviceMode::kReadWrite, false);
  REQUIRE(device.ok());
  const std::vector<struct iovec> pieces(WriteQueue::kMaxStaging + 1);
  for (const IoMode mode : {IoMode::kAuto, IoMode::kUring, IoMode::kSync}) {
    for (const unsigned depth : {0U, WriteQueue::kMaxDepth + 1}) {
      const auto made = WriteQueue::make(**device, mode, {}, depth);
      REQUIRE_FALSE(made.ok());
      CHECK(made.error().code == Errc::kInvalidArgument);
    }
    const auto made = WriteQueue::make(**device, mode, pieces, 1);
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kInvalidArgument);
  }
}

TEST_CASE("starting in a slot under way, or what direct I/O cannot take, is a reported bug") {
  LogWorld log;
  for (const IoMode mode : kModes) {
    Queue world(kLogPath, mode);
    const auto unaligned = run_in_child([&] {
      struct iovec part {
        world.staging.data(), kBlock
      };
      // Not by start(), which refuses a child before it looks at anything.
      world.device->check_aligned(512, &part, 1);
    });
    CHECK(unaligned.aborted_with("unaligned write of the log"));
    const auto beyond = run_in_child([&] { (void)world.queue->wait(kDepth); });
    CHECK(beyond.aborted_with("no slot of that number"));
  }
  Queue world(kLogPath, IoMode::kUring);
  REQUIRE(world.start(0, 5).ok());
  const auto twice = run_in_child([&] { (void)world.start(0, 6); });
  CHECK(twice.aborted_with("no idle slot of that number"));
}

TEST_CASE("on a real file, neither way allocates between start and wait") {
  const RealLog log;
  for (const IoMode mode : kModes) {
    if (mode == IoMode::kUring && !kernel_has_rings(log.path)) {
      continue;
    }
    Queue world(log.path, mode, log.buffered);
    BugCounter bugs;
    {
      const NoAllocScope scope;
      for (int round = 0; round < 50; ++round) {
        for (unsigned i = 0; i < kDepth; ++i) {
          REQUIRE(world.start(i, 40 + i).ok());
        }
        REQUIRE(world.queue->wait(3).ok());
        REQUIRE(world.queue->wait_all().ok());
      }
    }
    CHECK(bugs.count(Bug::kAllocationInNoAllocScope) == 0);
    CHECK(world.queue->system_calls() >= 50U * kDepth);
    REQUIRE(world.device->flush().ok());
    for (unsigned i = 0; i < kDepth; ++i) {
      CHECK(world.read(40 + i) == std::byte(static_cast<unsigned char>('a' + i)));
    }
    // Several parts, out of staging and not.
    const AlignedBuffer other = buffer_of(kBlock, 'z');
    struct iovec parts[] = {{world.staging.data(), 2 * kBlock}, {other.data(), kBlock}};
    REQUIRE(world.queue->start(0, 60 * kBlock, parts, 2).ok());
    REQUIRE(world.queue->wait(0).ok());
    CHECK(world.read(61) == std::byte{'b'});
    CHECK(world.read(62) == std::byte{'z'});
  }
}

TEST_CASE(
    "an error of a real file comes out of the ring, and the queue goes with writes under way") {
  const RealLog log;
  if (!kernel_has_rings(log.path)) {
    return;
  }
  {
    // Opened for reading only: the kernel refuses each write at its completion.
    auto device = LogDevice::open(log.path, DeviceMode::kReadOnly, log.buffered);
    REQUIRE(device.ok());
    const auto queue = WriteQueue::make(**device, IoMode::kUring, {}, 2);
    REQUIRE(queue.ok());
    const AlignedBuffer block = buffer_of(kBlock);
    struct iovec part {
      block.data(), kBlock
    };
    REQUIRE((*queue)->start(0, 0, &part, 1).ok());
    CHECK((*queue)->wait(0).error().sys_errno == EBADF);
    CHECK((*device)->status().error().sys_errno == EBADF);
  }
  Queue world(log.path, IoMode::kUring, log.buffered);
  for (unsigned i = 0; i < kDepth; ++i) {
    REQUIRE(world.start(i, 70 + i).ok());
  }
  world.queue.reset();
  CHECK(world.read(77) == std::byte{'a' + 7});
}

TEST_CASE("a forked child can use no queue, and neither keeps the log from its parent") {
  const RealLog log;
  for (const IoMode mode : kModes) {
    if (mode == IoMode::kUring && !kernel_has_rings(log.path)) {
      continue;
    }
    auto world = std::make_unique<Queue>(log.path, mode, log.buffered);
    REQUIRE(world->start(0, 80).ok());
    int pipe_ends[2];
    REQUIRE(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      struct iovec part {
        nullptr, kBlock
      };
      const bool refused = world->queue->start(1, 0, &part, 1).error().code == Errc::kForked &&
                           world->queue->wait(0).error().code == Errc::kForked &&
                           world->queue->wait_all().error().code == Errc::kForked;
      world->queue.reset();
      const char answer = refused ? 'y' : 'n';
      (void)!::write(pipe_ends[1], &answer, 1);
      ::pause();  // with its copy of the descriptor
    }
    char answer = 0;
    REQUIRE(::read(pipe_ends[0], &answer, 1) == 1);
    CHECK(answer == 'y');
    CHECK(world->queue->wait(0).ok());
    CHECK(world->start(1, 81).ok());
    CHECK(world->queue->wait(1).ok());
    CHECK(world->read(81) == std::byte{'b'});
    world.reset();
    CHECK(LogDevice::open(log.path, DeviceMode::kReadWrite, log.buffered).ok());
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
  }
}

TEST_CASE("a log is free as soon as its queue and device are gone") {
  const RealLog log;
  for (const IoMode mode : kModes) {
    if (mode == IoMode::kUring && !kernel_has_rings(log.path)) {
      continue;
    }
    for (int round = 0; round < 50; ++round) {
      Queue world(log.path, mode, log.buffered);
      REQUIRE(world.start(0, 90).ok());
    }
  }
}
