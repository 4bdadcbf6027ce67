// What fails while writes are under way, what is waited for then, and who may not use a queue.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "probe.h"
#include "support/death.h"
#include "support/fault_os.h"
#include "support/skip_case.h"
#include "write_queue_world.h"

using namespace keel;
using namespace keel_test;

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

TEST_CASE("a write that is short is finished once, short again, or within a unit, is an error") {
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

TEST_CASE("no io_uring: kAuto does without it, kUring says so") {
  for (const int error : {ENOSYS, EINVAL, EOPNOTSUPP, EPERM, ENOMEM, EMFILE}) {
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
    const bool unknown = error == ENOSYS || error == EINVAL || error == EOPNOTSUPP;
    CHECK((wanted.error().code == Errc::kUnsupported) == unknown);
    log.disk.clear_faults();
    CHECK((*WriteQueue::make(**device, IoMode::kAuto, {}, 4))->mode() == IoMode::kUring);
    CHECK((*WriteQueue::make(**device, IoMode::kSync, {}, 4))->mode() == IoMode::kSync);
  }
}

TEST_CASE("a wait for the ring that is interrupted goes on, and nothing has failed") {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SimDisk disk({.seed = seed});
    const ScopedOs scope(disk);
    disk.set_image("/sim/log", SimContent(16 * kBlock));
    Queue world("/sim/log", IoMode::kUring);
    disk.inject({.op = SimOp::kRingWait, .error = EINTR});
    for (unsigned i = 0; i < kDepth; ++i) {
      REQUIRE(world.start(i, i).ok());
    }
    CHECK(world.queue->wait_all().ok());
    for (unsigned i = 0; i < kDepth; ++i) {
      CHECK(world.read(i) == std::byte(static_cast<unsigned char>('a' + i)));
    }
  }
}

TEST_CASE("a write that the kernel gives back because it would wait is made all the same") {
  for (std::uint64_t nth = 1; nth <= kDepth; ++nth) {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.set_image("/sim/log", SimContent(16 * kBlock));
    Queue world("/sim/log", IoMode::kUring);
    disk.inject({.op = SimOp::kWrite, .nth = nth, .error = EAGAIN});
    for (unsigned i = 0; i < kDepth; ++i) {
      REQUIRE(world.start(i, i).ok());
    }
    CHECK(world.queue->wait_all().ok());
    for (unsigned i = 0; i < kDepth; ++i) {
      CHECK(world.read(i) == std::byte(static_cast<unsigned char>('a' + i)));
    }
  }
}

TEST_CASE("a log that is open waits for its disk, whatever its opening had to avoid") {
  const RealLog log;
  for (const auto mode : {DeviceMode::kReadOnly, DeviceMode::kReadWrite}) {
    const auto device = LogDevice::open(log.path, mode, log.buffered);
    REQUIRE(device.ok());
    CHECK((::fcntl((*device)->descriptor(), F_GETFL) & O_NONBLOCK) == 0);
  }
}

TEST_CASE("a write of nothing is done at once, without a call") {
  for (const IoMode mode : kModes) {
    LogWorld log;
    Queue world(kLogPath, mode);
    log.disk.clear_io_log();
    CHECK(world.queue->start(0, 0, nullptr, 0).ok());
    CHECK(world.queue->wait(0).ok());
    CHECK(log.disk.io_log().empty());
  }
}

TEST_CASE("what is short when the device has failed elsewhere is not gone on with") {
  LogWorld log;
  Queue world(kLogPath, IoMode::kUring);
  log.disk.inject({.op = SimOp::kWrite, .effect = SimFault::Effect::kShort, .bytes = kBlock});
  struct iovec all {
    world.staging.data(), 4 * kBlock
  };
  REQUIRE(world.queue->start(0, 20 * kBlock, &all, 1).ok());
  (void)world.device->fail({Errc::kIo, EREMOTEIO, "of another thread", 0});
  CHECK(world.queue->wait(0).error().sys_errno == EREMOTEIO);
  CHECK(world.queue->wait_all().error().sys_errno == EREMOTEIO);
  CHECK(world.read(21) == std::byte{0});
}

TEST_CASE("what the kernel gives back when the device has failed elsewhere is not written") {
  LogWorld log;
  Queue world(kLogPath, IoMode::kUring);
  log.disk.inject({.op = SimOp::kWrite, .error = EAGAIN});
  REQUIRE(world.start(0, 20).ok());
  (void)world.device->fail({Errc::kIo, EREMOTEIO, "of another thread", 0});
  CHECK(world.queue->wait(0).error().sys_errno == EREMOTEIO);
  CHECK(world.read(20) == std::byte{0});
}

TEST_CASE("what is not in one piece of the staging is written all the same, from where it is") {
  LogWorld log;
  Queue world(kLogPath, IoMode::kUring);
  // Over the end of the staging, as its neighbour in memory may be: longer than all of it.
  const AlignedBuffer longer = buffer_of((kDepth + 1) * kBlock, 'l');
  struct iovec all {
    longer.data(), longer.bytes()
  };
  REQUIRE(world.queue->start(0, 20 * kBlock, &all, 1).ok());
  REQUIRE(world.queue->wait(0).ok());
  CHECK(world.read(20 + kDepth) == std::byte{'l'});
}

TEST_CASE("what does not lie in one piece of the staging is not written by that piece's number") {
  // Says where the kernel is told that the bytes are, and looks at none of them.
  class Records : public SimDisk {
   public:
    int ring_submit(OsRing*, const RingWrite& write) override {
      piece = write.buffer;
      return -EREMOTEIO;
    }
    int piece = -2;
  };
  const auto piece_of = [](std::uint64_t begin, std::uint64_t bytes, int count = 1) {
    Records disk;
    const ScopedOs scope(disk);
    disk.set_image("/sim/log", SimContent(16 * kBlock));
    Queue world("/sim/log", IoMode::kUring);
    struct iovec parts[2] = {{world.staging.data() + begin, bytes}, {world.staging.data(), kBlock}};
    CHECK(world.queue->start(0, 0, parts, count).error().sys_errno == EREMOTEIO);
    return disk.piece;
  };
  constexpr std::uint64_t kAll = kDepth * kBlock;
  CHECK(piece_of(0, kBlock) == 0);
  CHECK(piece_of(0, kAll) == 0);
  CHECK(piece_of(kAll - kBlock, kBlock) == 0);
  CHECK(piece_of(0, kAll + kBlock) == -1);
  CHECK(piece_of(kBlock, kAll) == -1);
  CHECK(piece_of(kAll, kBlock) == -1);
  CHECK(piece_of(0, kBlock, 2) == -1);
  CHECK(piece_of(0, std::uint64_t{1} << 31) == -1);  // more than a length in the ring can say
}

TEST_CASE("a forked child makes no queue on its parent's device, uses none, and ends it quietly") {
  LogWorld log;
  const auto device = LogDevice::open(kLogPath, DeviceMode::kReadOnly, false);
  REQUIRE(device.ok());
  log.disk.set_image("/sim/other", SimContent(16 * kBlock));
  for (const IoMode mode : kModes) {
    Queue world("/sim/other", mode);
    REQUIRE(world.start(0, 5).ok());
    const Ending ending = run_in_child([&] {
      const auto made = WriteQueue::make(**device, mode, {}, 1);
      bool right = !made.ok() && made.error().code == Errc::kForked;
      right = right && world.start(1, 6).error().code == Errc::kForked;
      right = right && world.queue->wait(0).error().code == Errc::kForked;
      right = right && world.queue->wait_all().error().code == Errc::kForked;
      world.queue.reset();
      ::_exit(right ? 0 : 1);
    });
    CHECK(ending.exit_code == 0);
    CHECK(world.queue->wait_all().ok());
    CHECK(world.read(5) == std::byte{'a'});
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

TEST_CASE(
    "an error of a real file comes out of the ring, and the queue goes with writes under way") {
  const RealLog log;
  if (const std::string why = why_no_ring(log.path); !why.empty()) {
    skip_case(why);
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

TEST_CASE("whatever is refused while a queue is made, nothing of it is left") {
  const RealLog log;
  if (const std::string why = why_no_ring(log.path); !why.empty()) {
    skip_case(why);
    return;
  }
  const AlignedBuffer staging = buffer_of(kBlock);
  const struct iovec piece { staging.data(), staging.bytes() };
  // The keeper of the pool that staging is from may map memory meanwhile.
  constexpr OsCallMask kNotOfPools =
      kAllThatCanFail & ~(mask_of(OsCall::kMmap) | mask_of(OsCall::kMremap) |
                          mask_of(OsCall::kMprotect) | mask_of(OsCall::kMadvise));
  FaultOs faults;
  const ScopedOs scope(faults);
  for (std::uint64_t nth = 1;; ++nth) {
    faults.disarm();
    {
      const auto device = LogDevice::open(log.path, DeviceMode::kReadWrite, log.buffered);
      REQUIRE(device.ok());
      faults.fail_nth(nth, kNotOfPools);
      const auto queue = WriteQueue::make(**device, IoMode::kUring, {&piece, 1}, kDepth);
      CHECK(queue.ok() == !faults.fired());
      if (!queue.ok()) {
        CHECK(queue.error().code == Errc::kNoMemory);
      }
    }
    CHECK(faults.holds_nothing());
    if (!faults.fired()) {
      CHECK(nth > 3);
      break;
    }
  }
}
