// The pool's API, and keel.h's, as a program of calls: every buffer's content is checked before it
// goes, system calls fail when the program says so, and the pool's own audit walks all structures.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>

#include "fuzz_input.h"
#include "keel/alloc/pool.h"
#include "keel/keel.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kMostBytes = std::size_t{2} << 20;  // the pool's kvmalloc_max
constexpr std::array<const char*, 4> kOwners{"", "one", "two", "three"};

keel_test::FaultOs& fault_os() {
  struct World {
    keel_test::FaultOs os;
    ScopedOs scope{os};
  };
  static auto* const world = new World;  // for as long as the process lives
  return world->os;
}

struct Buffer {
  std::byte* at = nullptr;
  std::size_t bytes = 0;
  std::uint8_t stamp = 0;
  bool from_c = false;  // of the process's pool
};

class World {
 public:
  explicit World(std::uint8_t mode)
      : hardened_(mode % 4 == 3), pool_([this] {
          PoolConfig config;
          config.capacity_bytes = std::size_t{6} << 20;
          config.chunk_bytes = std::size_t{1} << 20;
          config.window_bytes = std::size_t{16} << 20;
          config.kvmalloc_max_bytes = kMostBytes;
          config.huge_pages = false;
          config.background = false;
          config.system_malloc = true;
          config.hardened = hardened_;
          config.quarantine_bytes = std::size_t{1} << 20;
          auto made = Pool::create(config);
          FUZZ_CHECK(made.ok());
          return std::move(*made);
        }()) {}

  void run(FuzzInput& input) {
    constexpr int kMostSteps = 400;
    for (int i = 0; i < kMostSteps && !input.empty(); ++i) {
      step(input);
    }
    fault_os().disarm();
    for (Buffer& buffer : buffers_) {
      free(buffer, false);
    }
    pool_->audit();
  }

 private:
  static std::size_t read_size(FuzzInput& input) {
    switch (input.u8() % 8) {
      case 0: return input.u16() % kPage;
      case 1: return input.u8();
      case 2: return kPage * (1 + input.u8() % 64);
      case 3: return kPage * (1 + input.u8() % 16) + input.u8();
      case 4: return input.u16() * std::size_t{16};
      case 5: return kPage << (input.u8() % 10);
      case 6: {
        constexpr std::array<std::size_t, 8> kOdd{
            0, 1, SIZE_MAX, SIZE_MAX - 1, kMostBytes, kMostBytes + 1, SIZE_MAX / 2, kPage - 1};
        return kOdd[input.u8() % kOdd.size()];
      }
      default: return input.u8() * std::size_t{8};
    }
  }
  static AllocFlags read_flags(FuzzInput& input) {
    const std::uint8_t bits = input.u8();
    AllocFlags flags = AllocFlags::kNoWarn;
    for (const auto& [bit, flag] : {std::pair{1U, AllocFlags::kNoFs},
                                    {2U, AllocFlags::kNoWait},
                                    {4U, AllocFlags::kZero},
                                    {8U, AllocFlags::kRetryMayfail}}) {
      flags = (bits & bit) != 0 ? flags | flag : flags;
    }
    return flags;
  }

  // Bytes that a change anywhere near the ends, or at a page's start, shows in.
  static bool is_stamped(std::size_t i, std::size_t bytes) {
    return i < 16 || i + 16 >= bytes || i % kPage == 0;
  }
  static void stamp(Buffer& buffer) {
    for (std::size_t i = 0; i < buffer.bytes; i = next_stamped(i, buffer.bytes)) {
      buffer.at[i] = static_cast<std::byte>(buffer.stamp + i);
    }
  }
  static std::size_t next_stamped(std::size_t i, std::size_t bytes) {
    for (++i; i < bytes && !is_stamped(i, bytes);) {
      i = std::min((i / kPage + 1) * kPage, std::max(i + 1, bytes - 16));
    }
    return i;
  }
  static void check(const Buffer& buffer, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i = next_stamped(i, buffer.bytes)) {
      FUZZ_CHECK(buffer.at[i] == static_cast<std::byte>(buffer.stamp + i));
    }
  }

  void take(Buffer& buffer, void* address, std::size_t bytes, bool zeroed, bool from_c) {
    if (address == nullptr) {
      return;
    }
    buffer = {static_cast<std::byte*>(address), bytes, ++last_stamp_, from_c};
    FUZZ_CHECK((from_c ? keel_kvsize(address) : pool_->kvsize(address)) >= bytes);
    FUZZ_CHECK(bytes < kPage || reinterpret_cast<std::uintptr_t>(address) % kPage == 0);
    for (std::size_t i = 0; zeroed && i < bytes; ++i) {
      FUZZ_CHECK(buffer.at[i] == std::byte{0});
    }
    stamp(buffer);
  }

  void free(Buffer& buffer, bool sized) {
    if (buffer.at != nullptr) {
      check(buffer, buffer.bytes);
      if (buffer.from_c) {
        sized ? keel_kvfree_sized(buffer.at, buffer.bytes) : keel_kvfree(buffer.at);
      } else {
        sized ? pool_->kvfree_sized(buffer.at, buffer.bytes) : pool_->kvfree(buffer.at);
      }
    }
    buffer = {};
  }

  void allocate(FuzzInput& input) {
    Buffer& buffer = buffers_[input.u8() % buffers_.size()];
    const std::size_t bytes = read_size(input);
    const AllocFlags flags = read_flags(input);
    const char* owner = kOwners[input.u8() % kOwners.size()];
    free(buffer, false);
    void* address = pool_->kvmalloc(bytes, flags, owner);
    FUZZ_CHECK(address == nullptr || (bytes > 0 && bytes <= kMostBytes));
    take(buffer, address, bytes, has(flags, AllocFlags::kZero), false);
  }

  void allocate_in_c(FuzzInput& input) {
    Buffer& buffer = buffers_[input.u8() % buffers_.size()];
    const std::size_t bytes = read_size(input) % kMostBytes;
    free(buffer, false);
    const bool zeroed = input.u8() % 2 == 0;
    void* address = zeroed ? keel_kvzalloc(bytes, KEEL_NOWARN, nullptr)
                           : keel_kvmalloc(bytes, KEEL_NOWARN | KEEL_NOWAIT, "fuzz");
    FUZZ_CHECK(address == nullptr || bytes > 0);
    take(buffer, address, bytes, zeroed, true);
  }

  // As realloc() does it: of no bytes, it frees.
  void reallocate_in_c(Buffer& buffer, std::size_t bytes) {
    const Buffer before = buffer;
    check(before, before.bytes);
    const std::uint64_t frees = default_pool().stats().frees;
    void* address = keel_kvrealloc(before.at, bytes, KEEL_NOWARN, "fuzz");
    if (bytes == 0) {
      FUZZ_CHECK(address == nullptr && default_pool().stats().frees > frees);
      buffer = {};
      return;
    }
    if (address == nullptr) {
      return check(before, before.bytes);
    }
    Buffer moved = before;
    moved.at = static_cast<std::byte*>(address);
    check(moved, std::min(before.bytes, bytes));
    take(buffer, address, bytes, false, true);
  }

  // Never more than there is room for, and ended in any case.
  static void print_stats(std::size_t room) {
    const auto text = std::make_unique<char[]>(room);
    const std::size_t bytes = keel_stats_json(text.get(), room);
    FUZZ_CHECK(bytes == 0 || room == 0 || std::strlen(text.get()) == std::min(bytes, room - 1));
  }

  void reallocate(FuzzInput& input) {
    Buffer& buffer = buffers_[input.u8() % buffers_.size()];
    const std::size_t bytes = read_size(input);
    if (buffer.from_c) {
      return reallocate_in_c(buffer, bytes % kMostBytes);
    }
    const AllocFlags flags = without(read_flags(input), AllocFlags::kZero);
    if (bytes == 0) {
      return;
    }
    const Buffer before = buffer;
    if (before.at != nullptr) {
      check(before, before.bytes);
    }
    void* address = pool_->kvrealloc(before.at, bytes, flags, kOwners[input.u8() % 4]);
    if (address == nullptr) {
      if (before.at != nullptr) {
        check(before, before.bytes);
      }
      return;
    }
    Buffer moved = before;
    moved.at = static_cast<std::byte*>(address);
    check(moved, std::min(before.bytes, bytes));
    take(buffer, address, bytes, false, false);
  }

  void step(FuzzInput& input) {
    switch (input.u8() % 20) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: return allocate(input);
      case 5:
      case 6:
      case 7: return free(buffers_[input.u8() % buffers_.size()], false);
      case 8: return free(buffers_[input.u8() % buffers_.size()], true);
      case 9:
      case 10: return reallocate(input);
      case 11: return allocate_in_c(input);
      case 12: return void(pool_->trim());
      case 13: return pool_->purge();
      case 14: return pool_->upkeep();
      case 15: return void(pool_->reserve(Bytes(input.u8() * std::uint64_t{65536})).ok());
      case 16:
        return void(
            pool_->set_limit(kOwners[1 + input.u8() % 3], Bytes(input.u16() * std::uint64_t{64}))
                .ok());
      case 17: {
        fault_os().disarm();
        return pool_->audit();
      }
      case 18: {
        const std::uint8_t nth = input.u8();
        const auto mask = static_cast<keel_test::OsCallMask>(input.u16());
        return nth < 128 ? fault_os().fail_nth(1 + nth % 16, mask)
                         : fault_os().fail_from(1 + nth % 16, mask);
      }
      default: {
        fault_os().disarm();
        std::array<OwnerBytes, 4> most{};
        (void)pool_->holders(most);
        (void)pool_->stats();
        return print_stats(input.u8());
      }
    }
  }

  const bool hardened_;
  std::unique_ptr<Pool> pool_;
  std::array<Buffer, 48> buffers_{};
  std::uint8_t last_stamp_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  static const bool once = [] {
    (void)fault_os();
    (void)set_message_hook([](const char*) {});
    keel_kvfree(keel_kvmalloc(1, 0, nullptr));  // makes the process's pool
    return true;
  }();
  (void)once;
  FuzzInput input(data, bytes);
  World world(input.u8());
  world.run(input);
  return 0;
}
