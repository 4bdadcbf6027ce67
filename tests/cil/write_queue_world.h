// A write queue over a log device, for tests.
#pragma once

#include <doctest/doctest.h>
#include <sys/uio.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/cil/log_file.h"
#include "log/aligned_buffer.h"
#include "log/log_device.h"
#include "log/write_queue.h"
#include "support/scratch_directory.h"

namespace keel_test {

inline constexpr std::size_t kBlock = 4096;
inline constexpr unsigned kDepth = 8;
inline constexpr keel::IoMode kModes[] = {keel::IoMode::kSync, keel::IoMode::kUring};

inline keel::AlignedBuffer buffer_of(std::size_t bytes, char fill = 0) {
  auto made = keel::AlignedBuffer::allocate(keel::default_pool(), bytes, "write queue test");
  REQUIRE(made.ok());
  std::memset(made->data(), fill, bytes);
  return std::move(*made);
}

// A log device and a queue over it; staging is of kDepth blocks, block i filled with 'a' + i.
struct Queue {
  Queue(const std::string& path, keel::IoMode mode, bool buffered = false) {
    auto opened = keel::LogDevice::open(path, keel::DeviceMode::kReadWrite, buffered);
    REQUIRE(opened.ok());
    device = std::move(*opened);
    for (unsigned i = 0; i < kDepth; ++i) {
      std::memset(staging.data() + i * kBlock, static_cast<char>('a' + i), kBlock);
      parts[i] = {staging.data() + i * kBlock, kBlock};
    }
    const struct iovec piece { staging.data(), staging.bytes() };
    auto made = keel::WriteQueue::make(*device, mode, {&piece, 1}, kDepth);
    REQUIRE(made.ok());
    queue = std::move(*made);
    REQUIRE(queue->mode() == mode);
  }
  // Block i of staging to block `place` of the file.
  keel::Status start(unsigned i, std::uint64_t place) {
    parts[i] = {staging.data() + i * kBlock, kBlock};
    return queue->start(i, place * kBlock, &parts[i], 1);
  }
  [[nodiscard]] std::byte read(std::uint64_t place) const {
    const keel::AlignedBuffer block = buffer_of(kBlock);
    REQUIRE(device->read(place * kBlock, block.data(), kBlock).ok());
    return block.data()[kBlock - 1];
  }

  keel::AlignedBuffer staging = buffer_of(kDepth * kBlock);
  std::array<struct iovec, kDepth> parts{};
  std::unique_ptr<keel::LogDevice> device;
  std::unique_ptr<keel::WriteQueue> queue;
};

// Why the kernel gives no ring; empty where it does.
inline std::string why_no_ring(const std::string& path) {
  auto device = keel::LogDevice::open(path, keel::DeviceMode::kReadWrite, true);
  REQUIRE(device.ok());
  const auto queue = keel::WriteQueue::make(**device, keel::IoMode::kUring, {}, 1);
  return queue.ok() ? std::string() : queue.error().message();
}

// For a case that has other ways too: false, and says so, where the kernel gives no ring.
inline bool kernel_has_rings(const std::string& path) {
  const std::string why = why_no_ring(path);
  if (!why.empty()) {
    MESSAGE("skipped: " << why);
  }
  return why.empty();
}

// A log in the directory, and whether it takes direct I/O.
struct RealLog {
  RealLog() {
    keel::LogConfig config;
    config.size = keel::kMinLogBytes;
    buffered = !keel::create_log(path, config).ok();
    config.buffered = buffered;
    REQUIRE((!buffered || keel::create_log(path, config).ok()));
  }
  ScratchDirectory directory;
  std::string path = directory / "log";
  bool buffered = false;
};

}  // namespace keel_test
