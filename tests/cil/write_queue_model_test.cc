// Writes under way: any order and any size, either way into the kernel.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "keel/base/scopes.h"
#include "probe.h"
#include "support/test_seed.h"
#include "write_queue_world.h"

using namespace keel;
using namespace keel_test;

namespace {

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
