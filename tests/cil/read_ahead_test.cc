// ReadAhead: bytes in order, each read once, whoever reads them; bounded memory; failing reads.
#include "log/read_ahead.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "probe.h"
#include "support/gate.h"
#include "support/skip_case.h"
#include "support/test_seed.h"
#include "thread_refusal.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;

// A log file whose data area holds noise.
struct NoiseLog {
  NoiseLog() {
    SimContent image = world.disk.image(kLogPath);
    const std::string noise = random_bytes(5, image.size());
    std::memcpy(image.data() + 2 * kBlock, noise.data(), image.size() - 4 * kBlock);
    world.disk.set_image(kLogPath, image);
    auto opened = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
    REQUIRE(opened.ok());
    file = std::make_unique<LogFile>(std::move(*opened));
    content = world.disk.image(kLogPath);
    world.disk.clear_io_log();
  }

  [[nodiscard]] std::unique_ptr<ReadAhead> reader(const ReadAheadOptions& options) const {
    auto made = ReadAhead::make(*file, options);
    REQUIRE(made.ok());
    return std::move(*made);
  }
  [[nodiscard]] bool is_right(Lsn lsn, std::span<const std::byte> bytes) const {
    for (std::size_t at = 0; at < bytes.size(); at += kBlock) {
      const std::uint64_t offset = file->geometry().offset_of(lsn + Bytes(at));
      if (!std::equal(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                      bytes.begin() + static_cast<std::ptrdiff_t>(at + kBlock),
                      content.begin() + static_cast<std::ptrdiff_t>(offset))) {
        return false;
      }
    }
    return true;
  }
  // Reads [from, to) chunk by chunk; false at the first wrong byte or error.
  [[nodiscard]] bool walk(ReadAhead& reader, Lsn from, Lsn to) const {
    for (Lsn lsn = from; lsn < to;) {
      const auto bytes = reader.at(lsn);
      if (!bytes || bytes->empty() || !is_right(lsn, *bytes)) {
        return false;
      }
      lsn += Bytes(bytes->size());
      reader.release_below(lsn);
    }
    return true;
  }
  [[nodiscard]] std::uint64_t bytes_read() const {
    std::uint64_t bytes = 0;
    for (const SimIo& io : world.disk.io_log()) {
      bytes += io.op == SimOp::kRead && io.result > 0 ? static_cast<std::uint64_t>(io.result) : 0;
    }
    return bytes;
  }

  LogWorld world;
  std::unique_ptr<LogFile> file;
  SimContent content;
};

const std::vector<ReadAheadOptions> kWays = {
    {.chunk_bytes = kBlock, .depth = 0, .threads = 0},
    {.chunk_bytes = 3 * kBlock, .depth = 2, .threads = 1},
    {.chunk_bytes = 7 * kBlock, .depth = 5, .threads = 3},
    {.chunk_bytes = 64U << 20, .depth = 3, .threads = 2},
};

}  // namespace

TEST_CASE("read ahead: bytes come in order, over the wrap, each read from the device once") {
  const NoiseLog log;
  const std::uint64_t size = log.file->geometry().data_bytes;
  for (const ReadAheadOptions& way : kWays) {
    for (const Lsn from : {Lsn(0), Lsn(5 * size + 77 * kBlock)}) {
      CAPTURE(way.chunk_bytes);
      const std::uint64_t before = log.bytes_read();
      const auto reader = log.reader(way);
      reader->restart(from, from + Bytes(size));
      CHECK(log.walk(*reader, from, from + Bytes(size)));
      CHECK(log.bytes_read() - before == size);
      CHECK(reader->bytes_read() == Bytes(size));
    }
  }
}

TEST_CASE("read ahead: nothing beyond the limit is read, also when it grows in odd steps") {
  const NoiseLog log;
  for (const ReadAheadOptions& way : kWays) {
    CAPTURE(way.chunk_bytes);
    const std::uint64_t before = log.bytes_read();
    const auto reader = log.reader(way);
    reader->restart(Lsn(8 * kBlock), Lsn(9 * kBlock));
    Lsn at(8 * kBlock);
    for (std::uint64_t step = 1; step < 15; ++step) {
      const Lsn limit = at + Bytes(step * kBlock);
      reader->extend(limit);
      CHECK(log.walk(*reader, at, limit));
      CHECK(log.bytes_read() - before == (limit - Lsn(8 * kBlock)).value());
      at = limit;
    }
  }
}

TEST_CASE("read ahead: memory is the chunks held and those ahead, and no more") {
  const NoiseLog log;
  constexpr std::size_t kHeld = 10;
  for (const unsigned threads : {0U, 2U}) {
    const auto reader = log.reader({.chunk_bytes = 2 * kBlock, .depth = 3, .threads = threads});
    const Lsn end(log.file->geometry().data_bytes);
    reader->restart(Lsn(0), end);
    for (Lsn lsn(0); lsn < end; lsn += Bytes(2 * kBlock)) {
      REQUIRE(reader->at(lsn).ok());
      const Bytes held(kHeld * 2 * kBlock);
      if (lsn >= Lsn(held.value())) {
        reader->release_below(lsn - held);
      }
    }
    CHECK(reader->buffer_bytes() <= Bytes((kHeld + 1 + 1 + 3) * 2 * kBlock));
  }
}

TEST_CASE("read ahead: what is held stays as it was until it is released") {
  const NoiseLog log;
  const auto reader = log.reader({.chunk_bytes = 2 * kBlock, .depth = 4, .threads = 2});
  const Lsn end(64 * 2 * kBlock);
  reader->restart(Lsn(0), end);
  std::map<std::uint64_t, std::span<const std::byte>> held;
  for (Lsn lsn(0); lsn < end; lsn += Bytes(2 * kBlock)) {
    const auto bytes = reader->at(lsn);
    REQUIRE(bytes.ok());
    held[lsn.value()] = *bytes;
    for (const auto& [start, span] : held) {
      REQUIRE(log.is_right(Lsn(start), span));
    }
    if (held.size() == 9) {
      held.erase(held.begin());
      reader->release_below(Lsn(held.begin()->first));
    }
  }
}

TEST_CASE("read ahead: a read that fails is an error at its place, after all that stands before") {
  NoiseLog log;
  constexpr std::uint64_t kChunks = 12;
  for (const unsigned threads : {0U, 1U, 3U}) {
    for (std::uint64_t nth = 1; nth <= kChunks; ++nth) {
      log.world.disk.clear_faults();
      log.world.disk.inject({.op = SimOp::kRead, .nth = nth, .error = EIO});
      const auto reader = log.reader({.chunk_bytes = kBlock, .depth = 4, .threads = threads});
      reader->restart(Lsn(0), Lsn(kChunks * kBlock));
      std::uint64_t good = 0;
      while (good < kChunks && log.walk(*reader, Lsn(good * kBlock), Lsn((good + 1) * kBlock))) {
        ++good;
      }
      REQUIRE(good < kChunks);
      const auto again = reader->at(Lsn(good * kBlock));
      REQUIRE_FALSE(again.ok());
      CHECK(again.error().code == Errc::kIo);
      if (threads == 0) {
        CHECK(good == nth - 1);
      }
    }
  }
  log.world.disk.clear_faults();
}

TEST_CASE("read ahead: without a thread its user reads all") {
  if (!ThreadRefusal::works()) {
    skip_case("a sanitizer's own start of threads cannot be refused");
    return;
  }
  const NoiseLog log;
  const std::uint64_t size = log.file->geometry().data_bytes;
  for (int allowed = 0; allowed < 3; ++allowed) {
    ThreadRefusal refusal(allowed);
    const auto reader = log.reader({.chunk_bytes = 4 * kBlock, .depth = 4, .threads = 3});
    reader->restart(Lsn(0), Lsn(size));
    CHECK(log.walk(*reader, Lsn(0), Lsn(size)));
    CHECK(refusal.refused() == 1);
  }
}

TEST_CASE("read ahead: going back, and going elsewhere while reads are under way") {
  const NoiseLog log;
  std::uint64_t random = test_seed("seek", 51);
  const std::uint64_t blocks = log.file->geometry().data_bytes / kBlock;
  const auto reader = log.reader({.chunk_bytes = 3 * kBlock, .depth = 5, .threads = 2});
  for (std::uint64_t round = 0; round < test_rounds(500, 50); ++round) {
    const Lsn from((blocks + sim_random(random) % blocks) * kBlock);
    const Lsn to = from + Bytes((1 + sim_random(random) % 20) * kBlock);
    reader->restart(from, to + Bytes(sim_random(random) % 30 * kBlock));
    REQUIRE(log.walk(*reader, from, to));
  }
}

TEST_CASE("read ahead: where it goes next, a buffer that a thread still reads into is waited for") {
  // Reads of one place come to a gate before they move a byte.
  class SlowDisk : public SimDisk {
   public:
    ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                    int flags) override {
      if (offset == slow_offset) {
        gate.pass();
      }
      return SimDisk::preadv2(fd, parts, count, offset, flags);
    }
    std::atomic<std::uint64_t> slow_offset{UINT64_MAX};
    Gate gate;
  };
  const NoiseLog log;
  SlowDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, log.content);
  auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  constexpr std::size_t kChunk = 2 * kBlock;
  disk.slow_offset = file->geometry().offset_of(Lsn(kChunk));
  auto made = ReadAhead::make(*file, {.chunk_bytes = kChunk, .depth = 1, .threads = 1});
  REQUIRE(made.ok());
  ReadAhead& reader = **made;
  reader.restart(Lsn(0), Lsn(8 * kChunk));
  REQUIRE(reader.at(Lsn(0)).ok());
  disk.gate.wait_for_arrival();  // a thread reads the chunk ahead
  std::atomic<bool> restarted{false};
  bool right = false;
  std::thread user([&] {
    const Lsn elsewhere(16 * kChunk);
    reader.restart(elsewhere, elsewhere + Bytes(4 * kChunk));
    restarted = true;
    right = log.walk(reader, elsewhere, elsewhere + Bytes(4 * kChunk));
  });
  let_others_run();
  CHECK_FALSE(restarted);
  disk.gate.open();
  user.join();
  CHECK(right);
}

TEST_CASE(
    "read ahead: too little memory for what is ahead is no error, only for what is read now") {
  const NoiseLog log;
  class DryDisk : public SimDisk {
   public:
    int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
             std::uint64_t offset, void** out) override {
      return left-- > 0 ? SimDisk::mmap(address, bytes, protection, flags, fd, offset, out)
                        : -ENOMEM;
    }
    int left = 1'000'000;
  };
  DryDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, log.content);
  auto file = LogFile::open(kLogPath, DeviceMode::kReadOnly, false, default_pool());
  REQUIRE(file.ok());
  for (int buffers = 0; buffers <= 3; ++buffers) {
    CAPTURE(buffers);
    auto made = ReadAhead::make(*file, {.chunk_bytes = kBlock, .depth = 2, .threads = 0});
    REQUIRE(made.ok());
    disk.left = buffers;
    (*made)->restart(Lsn(0), Lsn(20 * kBlock));
    if (buffers == 0) {
      const auto bytes = (*made)->at(Lsn(0));
      REQUIRE_FALSE(bytes.ok());
      CHECK(bytes.error().code == Errc::kNoMemory);
    } else {
      CHECK(log.walk(**made, Lsn(0), Lsn(20 * kBlock)));
      CHECK((*made)->buffer_bytes() == Bytes(static_cast<std::uint64_t>(buffers) * kBlock));
    }
    disk.left = 1'000'000;
  }
}
