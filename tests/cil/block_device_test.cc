// Logs on simulated block devices: what is refused, what is overwritten, what a failure leaves.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "block_device_world.h"
#include "log/log_device.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a log on a simulated block device takes all of it, and is used like any other") {
  for (const std::uint64_t odd : {0U, 512U, 3584U}) {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.add_block_device("/sim/disk", kDeviceBytes + odd);
    const auto made = create_log("/sim/disk", whole_device());
    REQUIRE(made.ok());
    CHECK(made->file == Bytes(kDeviceBytes));
    CHECK(made->valid_superblocks == 2);
    check_usable("/sim/disk");
    CHECK(create_code("/sim/disk", whole_device()) == Errc::kExists);
    auto again = whole_device();
    again.overwrite = true;
    const auto other = create_log("/sim/disk", again);
    REQUIRE(other.ok());
    CHECK(other->uuid != made->uuid);
    check_usable("/sim/disk");
    // A lost first superblock is found at the device's end.
    SimContent image = disk.image("/sim/disk");
    std::fill_n(image.begin(), 4096, std::byte{0});
    disk.add_block_device("/sim/disk", image.size());
    {
      const auto device = LogDevice::open("/sim/disk", DeviceMode::kReadWrite, true);
      REQUIRE(device.ok());
      struct iovec all {
        image.data(), image.size()
      };
      REQUIRE((*device)->write(0, &all, 1).ok());
    }
    const auto info = read_log_info("/sim/disk");
    REQUIRE(info.ok());
    CHECK(info->valid_superblocks == 1);
  }
}

TEST_CASE(
    "a device that holds anything at its ends is refused untouched, unless overwriting is asked "
    "for") {
  constexpr std::uint64_t kEnd = 256 << 10;
  struct Case {
    std::uint64_t at;
    bool refused;
  };
  for (const Case& one :
       {Case{0, true}, Case{64 << 10, true}, Case{kEnd - 1, true}, Case{kEnd, false},
        Case{kDeviceBytes / 2, false}, Case{kDeviceBytes - kEnd - 1, false},
        Case{kDeviceBytes - kEnd, true}, Case{kDeviceBytes - 1, true}}) {
    CAPTURE(one.at);
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.add_block_device("/sim/disk", kDeviceBytes);
    disk.flip_bit("/sim/disk", one.at, 3);
    const SimContent before = disk.image("/sim/disk");
    const auto made = create_log("/sim/disk", whole_device());
    CHECK(made.ok() == !one.refused);
    if (one.refused) {
      CHECK(made.error().code == Errc::kExists);
      CHECK(made.error().value == one.at);
      CHECK(disk.image("/sim/disk") == before);
    }
    auto config = whole_device();
    config.overwrite = true;
    CHECK(create_log("/sim/disk", config).ok());
  }
}

TEST_CASE("overwriting is for devices: a file is never made over") {
  LogWorld log;
  LogConfig config;
  config.overwrite = true;
  CHECK(create_code(kLogPath, config) == Errc::kExists);
}

TEST_CASE("a device in use is refused to writers, and can still be read") {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.add_block_device("/sim/disk", kDeviceBytes);
  REQUIRE(create_log("/sim/disk", whole_device()).ok());
  disk.set_in_use("/sim/disk", true);
  auto config = whole_device();
  config.overwrite = true;
  const SimContent before = disk.image("/sim/disk");
  CHECK(create_code("/sim/disk", config) == Errc::kBusy);
  CHECK(Journal::open("/sim/disk", {}, kIgnore).error().code == Errc::kBusy);
  CHECK(disk.image("/sim/disk") == before);
  CHECK(read_log_info("/sim/disk").ok());
  disk.set_in_use("/sim/disk", false);
  check_usable("/sim/disk");
}

TEST_CASE("a size that is not the device's, and a device that is too small, are refused") {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.add_block_device("/sim/disk", kDeviceBytes);
  disk.add_block_device("/sim/small", kMinLogBytes.value() - 4096);
  for (const std::uint64_t bytes : {kDeviceBytes / 2, kDeviceBytes - 4096, kDeviceBytes * 2}) {
    CHECK(create_code("/sim/disk", {.size = Bytes(bytes)}) == Errc::kInvalidArgument);
  }
  CHECK(create_code("/sim/small", whole_device()) == Errc::kInvalidArgument);
  CHECK(create_log("/sim/disk", {.size = Bytes(kDeviceBytes)}).ok());
}

TEST_CASE("no block is smaller than the disk's physical sector, on a device or under a file") {
  for (const std::uint32_t sector : {512U, 4096U, 16384U, 65536U}) {
    SimDisk disk({.physical_sector = sector});
    const ScopedOs scope(disk);
    disk.add_block_device("/sim/disk", 2 * kDeviceBytes);
    for (const char* path : {"/sim/disk", "/sim/log"}) {
      const auto made = create_log(
          path, {.size = Bytes(path == std::string("/sim/disk") ? 0 : 2 * kDeviceBytes)});
      REQUIRE(made.ok());
      CHECK(made->block_bytes == std::max(sector, 4096U));
      CHECK(made->alignment == made->block_bytes);
      check_usable(path);
    }
  }
  SimDisk disk({.physical_sector = 131072});
  const ScopedOs scope(disk);
  CHECK(create_code("/sim/log", {.size = Bytes(kDeviceBytes)}) == Errc::kUnsupported);
}

TEST_CASE("whatever fails while a device is made a log, it holds a whole one or none") {
  std::uint64_t nth = 1;
  for (bool met = true; met; ++nth) {
    CAPTURE(nth);
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.add_block_device("/sim/disk", kDeviceBytes);
    disk.inject({.op = SimOp::kAny, .nth = nth});
    const auto made = create_log("/sim/disk", whole_device());
    disk.clear_faults();
    met = disk.io_log().size() >= nth;
    const auto info = read_log_info("/sim/disk");
    CHECK((!made.ok() || info.ok()));
    if (info.ok()) {
      CHECK(info->valid_states == 2);
    } else {
      CHECK(info.error().code == Errc::kNotALog);
      auto again = whole_device();
      again.overwrite = true;  // its state slots may be there
      CHECK(create_log("/sim/disk", again).ok());
    }
  }
  CHECK(nth > 8);
}

namespace {

constexpr std::uint64_t kCheckpoints = 6;

// A device with a log of six checkpoints, all in its upper half, which was killed after it had
// rested: nothing but its superblocks says that there is anything.
SimSnapshot device_with_log() {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.add_block_device("/sim/disk", kDeviceBytes);
  REQUIRE(create_log("/sim/disk", whole_device()).ok());
  Trace trace;
  Probe filler(trace, 0);
  filler.regions = {std::string(kDeviceBytes / 8, 'f')};
  filler.after = Tracking::kRelease;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = Journal::open("/sim/disk", {}, kIgnore);
  REQUIRE(journal.ok());
  for (int i = 0; i < 5; ++i) {
    REQUIRE((*journal)->force(commit(**journal, {&filler}, kDeviceBytes / 7)).ok());
  }
  for (std::uint32_t i = 1; i <= kCheckpoints; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {"old " + std::to_string(i)};
    REQUIRE((*journal)->force(commit(**journal, {items.back().get()})).ok());
  }
  REQUIRE((*journal)->close().ok());
  journal->reset();
  return disk.snapshot();
}

// What is wrong with a device on which a log was being made over an old one; empty: nothing. It
// holds all of the old one, unchanged but for a superblock, an empty new one, or none.
std::string fault_of_device(const SimDisk& disk, const SimContent& old_image,
                            const std::string& old_uuid) {
  const auto info = read_log_info("/sim/disk");
  if (!info) {
    return info.error().code == Errc::kNotALog ? "" : "neither: " + info.error().message();
  }
  const bool old = to_string(info->uuid) == old_uuid;
  const SimContent image = disk.image("/sim/disk");
  if (old && !std::equal(image.begin() + 4096, image.end() - 4096, old_image.begin() + 4096)) {
    return "what is left of the old one opens";
  }
  Found found;
  const auto journal = Journal::open("/sim/disk", {}, collect_into(found));
  if (!journal) {
    return "does not open: " + journal.error().message();
  }
  return found.size() == (old ? kCheckpoints : 0) ? ""
                                                  : "checkpoints: " + std::to_string(found.size());
}

}  // namespace

TEST_CASE("whatever fails while a device is made a log anew, it holds a whole one or none") {
  const SimSnapshot before = device_with_log();
  std::uint64_t nth = 1, kept = 0, none = 0;
  for (bool met = true; met; ++nth) {
    CAPTURE(nth);
    SimDisk disk;
    disk.boot(before, 1);
    const ScopedOs scope(disk);
    const std::string old_uuid = to_string(read_log_info("/sim/disk")->uuid);
    const SimContent old_image = disk.image("/sim/disk");
    disk.clear_io_log();
    disk.inject({.op = SimOp::kAny, .nth = nth});
    auto config = whole_device();
    config.overwrite = true;
    const auto made = create_log("/sim/disk", config);
    disk.clear_faults();
    met = disk.io_log().size() >= nth;
    const auto info = read_log_info("/sim/disk");
    kept += info.ok() && to_string(info->uuid) == old_uuid ? 1U : 0U;
    none += info.ok() ? 0U : 1U;
    CHECK((!made.ok() || info.ok()));
    CHECK((!made.ok() || to_string(info->uuid) == to_string(made->uuid)));
    CHECK(fault_of_device(disk, old_image, old_uuid) == "");
    CHECK(create_log("/sim/disk", config).ok());
  }
  CHECK(kept > 0);
  CHECK(none > 8);
}

TEST_CASE("a power cut while a device is made a log anew leaves a whole one, old or new, or none") {
  const SimSnapshot before = device_with_log();
  std::vector<SimSnapshot> moments;
  std::string old_uuid;
  SimContent old_image;
  {
    SimDisk disk;
    disk.boot(before, 1);
    const ScopedOs scope(disk);
    old_image = disk.image("/sim/disk");
    old_uuid = to_string(read_log_info("/sim/disk")->uuid);
    disk.on_io([&](const SimIo&) { moments.push_back(disk.snapshot()); });
    auto config = whole_device();
    config.overwrite = true;
    REQUIRE(create_log("/sim/disk", config).ok());
  }
  for (const SimSnapshot& moment : moments) {
    for (std::uint64_t fate = 0; fate < 8; ++fate) {
      CAPTURE(fate);
      SimDisk after;
      if (fate < 4) {
        // The first block, as a superblock's, or the last, or both, are late.
        after.boot_with(moment, [fate](const SimSector& sector) {
          const bool late = ((fate & 1) != 0 && sector.offset < 4096) ||
                            ((fate & 2) != 0 && sector.offset >= kDeviceBytes - 4096);
          return late ? SimFate::kDrop : SimFate::kKeep;
        });
      } else {
        after.boot(moment, fate);
      }
      const ScopedOs scope(after);
      CHECK(fault_of_device(after, old_image, old_uuid) == "");
    }
  }
}

TEST_CASE("a power cut while a device is made a log leaves none, or one that opens") {
  std::vector<SimSnapshot> moments;
  {
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.add_block_device("/sim/disk", kDeviceBytes);
    disk.on_io([&](const SimIo&) { moments.push_back(disk.snapshot()); });
    REQUIRE(create_log("/sim/disk", whole_device()).ok());
  }
  std::size_t opened = 0;
  const auto check = [&] {
    const auto journal = Journal::open("/sim/disk", {}, kIgnore);
    opened += journal.ok() ? 1U : 0U;
    CHECK((journal.ok() || journal.error().code == Errc::kNotALog));
  };
  for (const SimSnapshot& moment : moments) {
    {
      // The superblocks and nothing else.
      SimDisk after;
      after.boot_with(moment, [](const SimSector& sector) {
        const bool superblock = sector.offset < 4096 || sector.offset >= kDeviceBytes - 4096;
        return superblock ? SimFate::kKeep : SimFate::kDrop;
      });
      const ScopedOs scope(after);
      check();
    }
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      SimDisk after;
      after.boot(moment, seed);
      const ScopedOs scope(after);
      check();
    }
  }
  CHECK(opened > 0);
}
