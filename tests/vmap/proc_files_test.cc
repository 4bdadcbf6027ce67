// What is read of the kernel's text files: also where they cannot be read or say something else.
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "keel/vmap/frame_store.h"
#include "keel/vmap/system_limits.h"
#include "support/fault_os.h"

using namespace keel;
using keel_test::FaultOs;
using keel_test::mask_of;
using keel_test::OsCall;

namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr Bytes kAssumed{std::uint64_t{1} << 30};

// All files that are read have this text.
class TextOs final : public Os {
 public:
  std::string text;
  ssize_t preadv2(int /*fd*/, const struct iovec* parts, int /*count*/, std::uint64_t offset,
                  int /*flags*/) override {
    const std::size_t at = std::min<std::size_t>(offset, text.size());
    const std::size_t bytes = std::min(parts->iov_len, text.size() - at);
    std::memcpy(parts->iov_base, text.data() + at, bytes);
    return static_cast<ssize_t>(bytes);
  }
};

std::unique_ptr<FrameStore> make() {
  auto made = FrameStore::create({.capacity_bytes = 4 * kChunkBytes, .chunk_bytes = kChunkBytes});
  REQUIRE(made.ok());
  return std::move(*made);
}

std::string hex(std::uintptr_t number) {
  char text[20];
  (void)std::snprintf(text, sizeof text, "%lx", number);
  return text;
}

}  // namespace

TEST_CASE("the machine's memory and mappings are what the kernel says") {
  CHECK(machine_memory() > Bytes(std::uint64_t{32} << 20));
  CHECK(max_map_count() >= 1000);
  TextOs os;
  const ScopedOs scope(os);
  os.text = "MemFree: 17 kB\nMemTotal:     2048 kB\nCached: 5 kB\n";
  CHECK(machine_memory() == Bytes(std::uint64_t{2} << 20));
  os.text = "123456\n";
  CHECK(max_map_count() == 123456);
}

TEST_CASE("where the kernel does not say a gigabyte and its default of mappings are assumed") {
  {
    TextOs os;
    const ScopedOs scope(os);
    CHECK(machine_memory() == kAssumed);
    CHECK(max_map_count() == 65530);
    os.text = "no such line\n";
    CHECK(machine_memory() == kAssumed);
  }
  FaultOs os;
  const ScopedOs scope(os);
  for (const OsCall call : {OsCall::kOpen, OsCall::kRead}) {
    os.fail_from(1, mask_of(call), EACCES);
    CHECK(machine_memory() == kAssumed);
    CHECK(max_map_count() == 65530);
  }
  CHECK(os.files_held() == 0);
}

TEST_CASE("huge pages are those of the direct map's own lines in smaps") {
  const auto store = make();
  const auto start = reinterpret_cast<std::uintptr_t>(store->address_of(Pfn(0)));
  const std::uintptr_t end = start + 4 * kChunkBytes;
  TextOs os;
  const ScopedOs scope(os);
  os.text = hex(start - 4096) + "-" + hex(start) + " rw-p 0 0 0\nShmemPmdMapped: 1 kB\n" +
            hex(start) + "-" + hex(start + kChunkBytes) + " rw-s 0 0 0\nSize: 1024 kB\n" +
            "ShmemPmdMapped: 2048 kB\n" + std::string(1000, 'x') + "\n" + hex(start + kChunkBytes) +
            "-" + hex(end) + " rw-s 0 0 0\nShmemPmdMapped: 6 kB\n" + hex(end) + "-" +
            hex(end + 4096) + " rw-p 0 0 0\nShmemPmdMapped: 8 kB\n";
  const auto huge = store->huge_bytes();
  REQUIRE(huge.ok());
  CHECK(*huge == Bytes(2054 * 1024));
  // However its lines lie in what is read at a time.
  os.text.insert(0, 8190 - os.text.find("ShmemPmdMapped: 2048"), '\n');
  CHECK(*store->huge_bytes() == Bytes(2054 * 1024));
}

TEST_CASE("what cannot be learned of huge pages is an error, and no file stays open") {
  const auto store = make();
  {
    TextOs os;
    const ScopedOs scope(os);
    os.text.assign(10'000, 'x');
    CHECK(store->huge_bytes().error().code == Errc::kUnsupported);
  }
  FaultOs os;
  const ScopedOs scope(os);
  for (const OsCall call : {OsCall::kOpen, OsCall::kRead}) {
    os.fail_nth(1, mask_of(call), EACCES);
    CHECK(store->huge_bytes().error().code == Errc::kPermission);
    CHECK(os.fired());
  }
  os.fail_nth(2, mask_of(OsCall::kRead), EIO);
  CHECK(store->huge_bytes().error().sys_errno == EIO);
  CHECK(os.files_held() == 0);
}
